"""Post-training methods in a training of several processes, whose calibration batches differ."""

from __future__ import annotations

import pytest
import torch.distributed as dist
from sparsity_helpers import mlp, pruner_of

from hydraprune.sparsity import (
    Block,
    Exp,
    Method,
    OneShot,
    RetrainFree,
    SnipMomentum,
    SparseGpt,
    SparsityError,
    Wanda,
    custom,
)


@pytest.mark.parametrize("method", [Wanda(), SparseGpt(), RetrainFree()], ids=lambda m: m.name)
def test_they_are_refused_in_one_line(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = custom(Block("channel", 1), 0.5)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        pruner_of(mlp(), plans, method, OneShot())  # one process
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        with pytest.raises(
            SparsityError, match=rf"pruner={method.name}: .*2 processes.*their masks would differ; prune"
        ):
            pruner_of(mlp(), plans, method, OneShot())
        # Gradients are averaged over the processes, so what scores them is the same in each.
        pruner_of(mlp(), plans, SnipMomentum(), Exp(warmup=1))
    finally:
        dist.destroy_process_group()
