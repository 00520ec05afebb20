"""Shared by tests of post-training methods: models with stored inputs, and their calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from sparsity_helpers import PLAIN, plan_of
from torch import Tensor, nn

from hydraprune.sparsity import Calibration, Family, OneShot, Plan, Plans, PostTraining, Pruner, attach


def batches_of(features: int, count: int = 3, seed: int = 0) -> list[Tensor]:
    """`count` batches of 40 rows whose features are correlated and differ in size, as a layer's inputs do."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(features, dtype=torch.float64)
    mixing += 0.2 * torch.randn(features, features, generator=generator, dtype=torch.float64)
    mixing *= torch.rand(features, generator=generator, dtype=torch.float64) * 3 + 0.1
    return [torch.randn(40, features, generator=generator, dtype=torch.float64) @ mixing for _ in range(count)]


def calibration_on(model: nn.Module, batches: Sequence[Tensor]) -> Calibration:
    """Runs `model` over `batches`; the loss is that of a made-up target."""

    def run(count: int) -> Iterator[Tensor]:
        training = model.training
        model.eval()
        try:
            for batch in batches[:count]:
                output = model(batch)
                generator = torch.Generator().manual_seed(len(batch))
                target = torch.randn(output.shape, generator=generator, dtype=output.dtype)
                yield (output - target).square().mean()
        finally:
            model.train(training)

    return run


def plan_at_start(plans: Plans, method: PostTraining) -> Plan:
    """The only plan, carried out before the first step."""
    return plan_of(plans, method, OneShot())


def calibrated(
    model: nn.Module, plans: Plans, method: PostTraining, batches: Sequence[Tensor], family: Family = PLAIN
) -> Pruner:
    """Prune `model` before any training."""
    calibration = calibration_on(model, batches)
    (pruner,) = attach(model, {plans.name: plan_at_start(plans, method)}, family, steps=0, calibration=calibration)
    assert pruner.project(0)
    return pruner


def double(weight: Tensor) -> nn.Linear:
    """A linear layer without a bias that holds `weight`, in double precision."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    layer.weight.data = weight.clone().double()
    return layer


class Attention(nn.Module):
    """Self-attention whose weights are named as in BERT; `gates` scale the outputs of its heads."""

    def __init__(self, width: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(width, width, dtype=torch.float64) for _ in range(4))
        self.gates, self.heads = torch.ones(heads, dtype=torch.float64), heads

    def forward(self, inputs: Tensor) -> Tensor:
        """[tokens, width] -> [tokens, width]."""
        query, key, value = (
            layer(inputs).unflatten(-1, (self.heads, -1)).transpose(0, 1)
            for layer in (self.query, self.key, self.value)
        )
        mixed = (query @ key.transpose(1, 2)).softmax(-1) @ value
        result: Tensor = self.output((mixed * self.gates[:, None, None]).transpose(0, 1).flatten(1))
        return result


ATTENTION = Family(
    "attention",
    {"query": [".*query"], "key": [".*key"], "value": [".*value"], "attention_output": [".*output"]},
    heads=4,
)
