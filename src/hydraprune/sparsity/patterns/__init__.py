"""What may be zero together?"""

from hydraprune.sparsity.patterns.base import Pattern, Reduce, Strip, ViewShape, shape_of
from hydraprune.sparsity.patterns.block import Block
from hydraprune.sparsity.patterns.n_of_m import NofM
from hydraprune.sparsity.patterns.registry import parse

__all__ = ["Block", "NofM", "Pattern", "Reduce", "Strip", "ViewShape", "parse", "shape_of"]
