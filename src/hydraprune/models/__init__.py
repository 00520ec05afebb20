"""Pretrained models, model families, and what is changed in a model to train it faster."""
