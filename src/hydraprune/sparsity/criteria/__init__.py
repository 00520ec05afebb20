"""Criteria: scores of weights, by which the cheapest units are pruned. One module per idea."""

from hydraprune.sparsity.criteria.base import ALL_STEPS, ROUNDING, Criterion, add_decayed, given, steps_remembered
from hydraprune.sparsity.criteria.block_mask import BlockMask
from hydraprune.sparsity.criteria.fisher import Fisher
from hydraprune.sparsity.criteria.movement import Movement, SoftMovement
from hydraprune.sparsity.criteria.platon import Platon
from hydraprune.sparsity.criteria.rigl import Rigl
from hydraprune.sparsity.criteria.saliency import Gradient, Magnitude, Snip, SnipMomentum, Unscored

__all__ = [
    "ALL_STEPS",
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
    "add_decayed",
    "given",
    "steps_remembered",
]
