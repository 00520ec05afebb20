"""What is a weight worth? One small file for each idea; the cheapest are pruned."""

from hydraprune.sparsity.criteria.basic import Gradient, Magnitude, Snip, SnipMomentum, Unscored
from hydraprune.sparsity.criteria.contract import ROUNDING, Criterion

__all__ = ["ROUNDING", "Criterion", "Gradient", "Magnitude", "Snip", "SnipMomentum", "Unscored"]
