"""Fine-tuning of a sparse model that keeps every zero."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure
from hydraprune.sparsity.pruners.base import Pruner, Units


class Lock(Pruner):
    """Masks every weight that is zero when training starts, one by one: zeros of partly zero blocks too.

    Arguments: see `Pruner`; the structures have pattern 1x1.
    """

    def observe(self, step: int) -> None:
        """Nothing is scored."""
        self._refuse_replaced()
        self._check_order()

    @property
    def needs_pruned_gradients(self) -> bool:
        return False

    @torch.no_grad()
    def project(self, step: int, optimizer: Optimizer | None = None) -> bool:
        first = not self._begun
        self.begin()
        self._masks.apply()
        return first

    @torch.no_grad()
    def begin(self) -> None:
        if self._begun:
            return
        self._refuse_replaced()
        self._begun = True
        self._keep_zeros()
        if not any(self._pruned):
            raise SparsityError(
                "the model has no zeros to keep",
                key="pattern",
                value="lock",
                cure="name a sparse one: dense.source=<folder or hub id>",
            )

    @property
    def target_sparsity(self) -> float:
        return self.zeros / self.total

    @property
    def pools(self) -> list[tuple[list[Structure], Units]]:
        counts = zip(self.structures, self._pruned, strict=True)
        return [([structure], Units(pruned, pruned, structure.units, (1,))) for structure, pruned in counts]
