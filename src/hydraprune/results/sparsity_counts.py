"""The sparsity of a saved model, as in a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from hydraprune.sparsity import Pruner, holds_pattern, model_sparsity, zeros_of
from hydraprune.sparsity.statistics import prunable_layers
from hydraprune.utils.names import snake


@dataclass(frozen=True)
class SparsityCounts:
    """Zeros and units counted in a model's weights.

    Args:
        units: {target, pruned, total} over all pruners.
        parts: the same per pruner, with its pattern, criterion, schedule, weights and element sparsity.
        sparsity: {prunable, linear, model, per_layer} as in report.json.
        pattern_ok: whether each pool has at least its target of pruned units.
    """

    units: dict[str, int]
    parts: dict[str, Any]
    sparsity: dict[str, Any]
    pattern_ok: bool


def count_sparsity(model: nn.Module, pruners: Sequence[Pruner]) -> SparsityCounts:
    """Count the zeros and pruned units of `model`, which has the architecture that `pruners` were made for."""
    weights = {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}
    parts: dict[str, Any] = {}
    pattern_ok, zeros, prunable = True, 0, 0
    for pruner in pruners:
        holds, found = holds_pattern(pruner, weights)
        empty = sum(zeros_of(weights[weight.name]) for weight in pruner.weights)
        pools = [units for _, units in pruner.pools]
        parts[pruner.name] = {
            "pattern": pruner.plan.pattern.name,
            "criterion": pruner.plan.criterion.name if pruner.plan.criterion else None,
            "scheduler": snake(type(pruner.plan.schedule).__name__),
            "scope": pruner.plan.selection.scope,
            "target_sparsity": pruner.target_sparsity,
            "sparsity": empty / pruner.total,
            "units": {
                "target": sum(pool.target for pool in pools),
                "pruned": found,
                "total": sum(pool.total for pool in pools),
            },
            "pattern_ok": holds,
            "weights": [weight.name for weight in pruner.weights],
        }
        pattern_ok, zeros, prunable = pattern_ok and holds, zeros + empty, prunable + pruner.total
    # Zeros alone: recognising the pattern of each layer takes a hundred times as long.
    layers = {name: (zeros_of(weight), weight.numel()) for name, weight, _ in prunable_layers(model)}
    return SparsityCounts(
        units={key: sum(part["units"][key] for part in parts.values()) for key in ("target", "pruned", "total")},
        parts=parts,
        sparsity={
            "prunable": zeros / prunable if prunable else 0.0,
            "linear": sum(empty for empty, _ in layers.values()) / max(1, sum(total for _, total in layers.values())),
            "model": model_sparsity(model),
            "per_layer": {name: empty / total for name, (empty, total) in layers.items()},
        },
        pattern_ok=pattern_ok,
    )
