"""The training loop, distillation and evaluation. Depends on torch, accelerate and the sparsity core."""
