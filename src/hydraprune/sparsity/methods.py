"""Ways to choose units other than scoring them step by step: what `pruner` may name beside a criterion."""

from __future__ import annotations

from dataclasses import dataclass

from hydraprune.sparsity.errors import SparsityError


@dataclass(frozen=True)
class Keep:
    """Nothing is chosen: what is zero stays zero."""


@dataclass(frozen=True)
class SrSte:
    """Straight-through estimation with a sparse-refined term (SR-STE). Zhou et al. 2021, arXiv:2102.04010.

    The forward pass sees the weights under a mask, the cheapest units by magnitude at zero; the
    gradient found there moves all weights, and those under the mask decay towards zero besides:
    g + decay * (1 - mask) * w. The mask is chosen anew before every step of the window, and fixed
    in the cooldown.

    Args:
        decay: of masked weights, at least 0; 0 is the plain straight-through estimator.

    Raises:
        SparsityError: it is negative.
    """

    decay: float = 2e-4

    def __post_init__(self) -> None:
        if isinstance(self.decay, bool) or not 0.0 <= self.decay < float("inf"):
            raise SparsityError(f"decay={self.decay}: must be at least 0")
