"""The training loop, distillation and evaluation. Knows torch, accelerate and the sparsity core."""
