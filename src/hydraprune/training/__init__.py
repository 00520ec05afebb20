"""The training loop, distillation losses, teachers, evaluation and checkpoints.

To add a distillation loss, subclass `Distiller`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydraprune.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from hydraprune.data.batches import Batch
    from hydraprune.training.distillation import Distiller, task_loss

__all__ = ["Batch", "Distiller", "task_loss"]

__getattr__ = lazy_exports(
    __name__,
    {
        "Batch": "hydraprune.data.batches",
        "Distiller": "hydraprune.training.distillation",
        "task_loss": "hydraprune.training.distillation",
    },
)
