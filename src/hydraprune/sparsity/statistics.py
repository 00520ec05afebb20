"""How sparse is it really? Counts taken from weights, never from masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hydraprune.sparsity.layouts import LAYOUTS, module_type
from hydraprune.sparsity.patterns import Block, NofM, Pattern, ViewShape, parse
from hydraprune.sparsity.pruners.base import Pruner


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
    """(name, weight, view) of every Linear and convolution of `model`, heads included."""
    for name, module in model.named_modules():
        kind = module_type(module)
        if kind is not None and isinstance(module.weight, Tensor):
            weight = module.weight.detach()
            yield name, weight, LAYOUTS[kind].view(weight)


def layer_sparsity(model: nn.Module) -> list[LayerSparsity]:
    """What the weights of `model` show, layer by layer.

    A very sparse layer may obey a stricter pattern by chance: it is given the one that most
    layers obey, if it does too.
    """
    layers = list(prunable_layers(model))
    found = [obeyed_pattern(view != 0) for _, _, view in layers]
    common = [name for name, _ in Counter(found).most_common() if name not in ("dense", "empty", "1x1")]
    result = []
    for (name, weight, view), pattern in zip(layers, found, strict=True):
        if pattern in common:
            pattern = next(likely for likely in common if _obeys(view != 0, parse(likely)))
        result.append(LayerSparsity(name, tuple(weight.shape), zeros_of(weight), weight.numel(), pattern))
    return result


def model_sparsity(model: nn.Module) -> float:
    """Zeros / all parameters of `model`."""
    parameters = list(model.parameters())
    return sum(map(zeros_of, parameters)) / sum(p.numel() for p in parameters)


def _candidates() -> Sequence[Pattern]:
    """Patterns to look for, the most regular first."""
    blocks = [(r, c) for r in (32, 16, 8, 4, 2, 1) for c in (32, 16, 8, 4, 2, 1) if (r, c) != (1, 1)]
    blocks.sort(key=lambda side: -side[0] * side[1])
    groups = [NofM(1, 8), NofM(1, 4), NofM(2, 8), NofM(1, 2), NofM(2, 4), NofM(4, 8), NofM(3, 4), NofM(6, 8)]
    return [Block(1, "channel"), Block("channel", 1), *(Block(r, c) for r, c in blocks), *groups]


CANDIDATES = _candidates()


def obeyed_pattern(keep: Tensor) -> str:
    """The most regular pattern whose units hold every zero of a view (bool, True = non-zero).

    `dense` without a zero, `empty` without a non-zero, `1x1` when the zeros follow no pattern
    that is looked for: channels, blocks whose sides are powers of two up to 32, and common N:M
    groups.
    """
    if bool(keep.all()):
        return "dense"
    if not bool(keep.any()):
        return "empty"
    return next((pattern.name for pattern in CANDIDATES if _obeys(keep, pattern)), "1x1")


def _obeys(keep: Tensor, pattern: Pattern) -> bool:
    rows, positions, columns = keep.shape
    shape: ViewShape = (rows, positions, columns)
    if pattern.misfit(shape) is not None or pattern.units(shape) == 1 or not pattern.legal(keep):
        return False
    if isinstance(pattern, NofM):
        # Half-way through a ramp N:M leaves groups dense, and very sparse unstructured weights have
        # groups emptier than any N:M makes them: name it where nearly every group keeps just N.
        kept = keep.reshape(-1, pattern.of).sum(-1)
        return bool((kept == pattern.keep).float().mean() >= 0.99)
    return True


def holds_pattern(pruner: Pruner, weights: Mapping[str, Tensor]) -> tuple[bool, int]:
    """Whether `weights` (by parameter name) have at least the pruner's target of whole units at zero.

    Counted on the tensors given, pool by pool, with no look at the pruner's masks.

    Returns:
        (every pool holds, whole units at zero over all pools)
    """
    holds, found = True, 0
    for structures, units in pruner.pools:
        empty = sum(int(structure.empty(weights).sum()) for structure in structures)
        holds = holds and empty >= units.target
        found += empty
    return holds, found
