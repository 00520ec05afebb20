"""What is a weight worth? One small file for each idea; the cheapest are pruned."""

from hydraprune.sparsity.criteria.base import ROUNDING, Criterion
from hydraprune.sparsity.criteria.block_mask import BlockMask
from hydraprune.sparsity.criteria.fisher import Fisher
from hydraprune.sparsity.criteria.movement import Movement, SoftMovement
from hydraprune.sparsity.criteria.platon import Platon
from hydraprune.sparsity.criteria.rigl import Rigl
from hydraprune.sparsity.criteria.saliency import Gradient, Magnitude, Snip, SnipMomentum, Unscored

__all__ = [
    "ROUNDING",
    "BlockMask",
    "Criterion",
    "Fisher",
    "Gradient",
    "Magnitude",
    "Movement",
    "Platon",
    "Rigl",
    "Snip",
    "SnipMomentum",
    "SoftMovement",
    "Unscored",
]
