"""Kernels on sparse weights, and what they compute: packed weights, linear layers, whole encoders."""
