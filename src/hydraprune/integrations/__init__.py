"""Pruning in training loops of other libraries: Hugging Face's Trainer, and Lightning's."""
