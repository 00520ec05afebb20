"""Sensitivity times its uncertainty: PLATON, Zhang et al. 2022, arXiv:2206.12562."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydraprune.sparsity.criteria.base import Criterion, given, steps_remembered
from hydraprune.sparsity.patterns import Pattern, ViewShape
from hydraprune.sparsity.saliency_kernels import accumulate
from hydraprune.sparsity.validation import check_number


@dataclass(frozen=True)
class Platon(Criterion):
    """Mean * mean deviation of I = |w * g|, both exponential averages over the steps so far, from 0.

    M <- beta1 * M + (1 - beta1) * I; D <- beta2 * D + (1 - beta2) * |I - M|, with the new M; the
    score is M * D, which favours keeping a weight whose worth is uncertain. I is pooled to cells first.

    Args:
        beta1, beta2: at least 0 and below 1; 0 keeps the last step alone.

    Raises:
        SparsityError: one of them is out of range.
    """

    revives = True

    beta1: float = 0.85
    beta2: float = 0.95

    def __post_init__(self) -> None:
        check_number("beta1", self.beta1, 0, 1, from_low=True)
        check_number("beta2", self.beta2, 0, 1, from_low=True)

    @property
    def horizon(self) -> int:
        return steps_remembered(max(self.beta1, self.beta2))

    def state_shape(self, shape: ViewShape, pattern: Pattern) -> torch.Size:
        return torch.Size([2, *super().state_shape(shape, pattern)])

    def update_state(
        self,
        state: list[Tensor] | None,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor] | None,
        pattern: Pattern,
    ) -> list[Tensor]:
        worths = accumulate(None, weights, given(gradients), pattern, 0.0)
        averages = [worth.new_zeros(2, *worth.shape) for worth in worths] if state is None else state
        for (mean, deviation), worth in zip((pair.unbind() for pair in averages), worths, strict=True):
            mean.mul_(self.beta1).add_(worth, alpha=1 - self.beta1)
            deviation.mul_(self.beta2).add_(worth.sub_(mean).abs_(), alpha=1 - self.beta2)
        return averages

    def scores(self, state: list[Tensor], weights: Sequence[Tensor], pattern: Pattern) -> list[Tensor]:
        return [mean * deviation for mean, deviation in state]
