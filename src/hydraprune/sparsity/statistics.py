"""Statistics of sparsity, counted on weights and never on masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layer_weights import DIMENSIONS, layers_of
from hydraprune.sparsity.layouts import LAYOUTS, module_type
from hydraprune.sparsity.patterns import Pattern, shape_of
from hydraprune.sparsity.patterns.registry import candidates
from hydraprune.sparsity.pruners.base import Pruner
from hydraprune.sparsity.shards import held, is_sharded
from hydraprune.sparsity.wrappers import by_plain_names


@dataclass(frozen=True)
class LayerSparsity:
    """One Linear or convolution weight: how many zeros, and the pattern that they obey."""

    name: str
    shape: tuple[int, ...]
    zeros: int
    total: int
    pattern: str

    @property
    def sparsity(self) -> float:
        """Zeros / weights."""
        return self.zeros / self.total


def zeros_of(tensor: Tensor) -> int:
    """How many entries are exactly zero."""
    return tensor.numel() - int(torch.count_nonzero(tensor))


def prunable_layers(model: nn.Module) -> Iterable[tuple[str, Tensor, Tensor]]:
    """(name, weight, view) of every Linear and convolution of `model`, the classifier's included.

    The head of a language model that is its embedding is left out.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for name, module in layers_of(model).items():
        kind, held = module_type(module), getattr(module, "weight", None)
        if id(held) in tables:
            continue
        if kind is not None and isinstance(held, Tensor) and held.ndim == DIMENSIONS[kind]:
            weight = held.detach()
            yield name, weight, LAYOUTS[kind].view(weight)


def layer_sparsity(model: nn.Module) -> list[LayerSparsity]:
    """Zeros and pattern of every Linear and convolution weight of `model`, the classifier's included.

    A very sparse layer may obey a stricter pattern by chance: it is given the one that most
    layers obey, if it obeys that one too.
    """
    layers = list(prunable_layers(model))
    for name, weight, _ in layers:
        if is_sharded(weight):
            raise SparsityError(f"{name} is sharded", cure="load the full state dict into a model that is not")
    found = [_regular_pattern(view != 0) for _, _, view in layers]
    common = [pattern for pattern, _ in Counter(pattern for pattern in found if pattern is not None).most_common()]
    result = []
    for (name, weight, view), pattern in zip(layers, found, strict=True):
        keep = view != 0
        likely = pattern and next(candidate for candidate in common if _obeys(keep, candidate))
        word = likely.name if likely else _irregular(keep)
        result.append(LayerSparsity(name, tuple(weight.shape), zeros_of(weight), weight.numel(), word))
    return result


def model_sparsity(model: nn.Module) -> float:
    """Zeros / all parameters of `model`."""
    parameters = list(model.parameters())
    return sum(map(zeros_of, parameters)) / sum(p.numel() for p in parameters)


def nonfinite_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that hold NaN or infinity."""
    # The sum takes one pass over the memory; a sum that overflows is checked value by value.
    suspect = [name for name, weight in model.named_parameters() if not bool(weight.detach().sum().isfinite())]
    return [name for name in suspect if not bool(model.get_parameter(name).isfinite().all())]


def obeyed_pattern(keep: Tensor) -> str:
    """The most regular pattern whose units hold every zero of a view (bool, True = non-zero).

    `dense` without a zero, `empty` without a non-zero, `1x1` when the zeros follow none of these:
    channels, blocks whose sides are powers of two up to 32, registered patterns, common N:M groups.
    """
    pattern = _regular_pattern(keep)
    return pattern.name if pattern else _irregular(keep)


def _regular_pattern(keep: Tensor) -> Pattern | None:
    if bool(keep.all()) or not bool(keep.any()):
        return None
    return next((pattern for pattern in candidates(shape_of(keep)) if _obeys(keep, pattern)), None)


def _irregular(keep: Tensor) -> str:
    """The word for zeros of no regular pattern."""
    if bool(keep.all()):
        return "dense"
    return "1x1" if bool(keep.any()) else "empty"


def _obeys(keep: Tensor, pattern: Pattern) -> bool:
    shape = shape_of(keep)
    if pattern.misfit(shape) is not None or pattern.units(shape) == 1 or not pattern.legal(keep):
        return False
    # Half-way through a ramp N:M leaves groups dense, and very sparse unstructured weights have groups
    # emptier than any N:M makes them: a match needs nearly every group to keep exactly N.
    return not pattern.scores_weights or pattern.filled(keep) >= 0.99


def holds_pattern(pruner: Pruner, weights: Mapping[str, Tensor]) -> tuple[bool, int]:
    """Whether `weights` (by parameter name) have at least the pruner's target of whole units at zero.

    Counted pool by pool on the tensors given, not on the pruner's masks.

    Returns:
        (every pool holds, whole units at zero over all pools, by `Units.sizes`)
    """
    named = by_plain_names(weights, [weight.name for weight in pruner.weights])
    parts, holds, found = {name: held(weight) for name, weight in named.items()}, True, 0
    for weight in pruner.weights:
        if parts[weight.name].shape != weight.held.shape:
            raise SparsityError(
                f"{weight.name} {tuple(parts[weight.name].shape)} is not the part of it that this process holds, "
                f"{tuple(weight.held.shape)}",
                cure="after a forward pass without a backward call reshard() of the modules that fully_shard made",
            )
    for structures, units in pruner.pools:
        counted = zip(structures, units.sizes, strict=True)
        empty = pruner.shards.total(sum(int(structure.empty(parts).sum()) * size for structure, size in counted))
        holds = holds and empty >= units.target
        found += empty
    return holds, found
