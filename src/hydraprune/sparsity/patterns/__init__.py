"""Patterns: which weights of a layer are zero together."""

from hydraprune.sparsity.patterns.base import ColumnSums, Pattern, Reduce, ViewShape, shape_of
from hydraprune.sparsity.patterns.block import Block
from hydraprune.sparsity.patterns.n_of_m import NofM
from hydraprune.sparsity.patterns.registry import parse, register, unregister

__all__ = [
    "Block",
    "ColumnSums",
    "NofM",
    "Pattern",
    "Reduce",
    "ViewShape",
    "parse",
    "register",
    "shape_of",
    "unregister",
]
