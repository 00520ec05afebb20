"""Coverage: which weights of a model pruners take, which stay dense, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from hydraprune.sparsity.layer_weights import is_layer
from hydraprune.sparsity.layers import Family
from hydraprune.sparsity.pruners.base import Pruner
from hydraprune.sparsity.wrappers import is_instance_of, named_parameters

Reason = Literal["outside", "excluded", "not chosen", "embedding", "unsupported"]

# A model of which a larger share than this lies in weights that no pruner can take deserves a word.
_ODD_SHARE = 0.05


@dataclass(frozen=True)
class PrunedWeight:
    """A weight that a pruner takes.

    Args:
        name: of the parameter, without the words of wrappers such as `_orig_mod`.
        shape: of the parameter.
        parameters: how many numbers it holds.
        pruner: the name of the pruner.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    pruner: str


@dataclass(frozen=True)
class DenseWeight:
    """A parameter of two or more dimensions that no pruner takes.

    Args:
        name, shape, parameters: see `PrunedWeight`.
        module: the class of the module that holds it.
        reason: `outside`: of a module outside the encoder (`Family.outside`), such as the head; `excluded`: by
            `Layers.exclude`; `not chosen`: a layer of another role, name or type than those asked for; `embedding`;
            `unsupported`: pruners take weights of Linear, Conv1d, Conv2d and Conv1D layers, and this is none.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    module: str
    reason: Reason


@dataclass(frozen=True)
class Coverage:
    """What pruners take of a model.

    Args:
        pruned: the weights that pruners take, in the order of the model.
        dense: the parameters of two or more dimensions that they do not take, in the order of the model.
        small: how many numbers all other parameters hold: biases, normalisation weights.
    """

    pruned: tuple[PrunedWeight, ...]
    dense: tuple[DenseWeight, ...]
    small: int

    @property
    def covered(self) -> int:
        """How many numbers the weights hold that pruners take."""
        return sum(weight.parameters for weight in self.pruned)

    @property
    def parameters(self) -> int:
        """How many numbers all parameters hold, tied ones once."""
        return self.covered + sum(weight.parameters for weight in self.dense) + self.small

    @property
    def share(self) -> float:
        """The share of all parameters that pruners take; 0 where the model has none."""
        return self.covered / self.parameters if self.parameters else 0.0

    @property
    def by_reason(self) -> dict[str, int]:
        """Reason -> how many numbers stay dense for it; reasons that occur, the largest first."""
        sums: dict[str, int] = {}
        for weight in self.dense:
            sums[weight.reason] = sums.get(weight.reason, 0) + weight.parameters
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    @property
    def unsupported(self) -> tuple[DenseWeight, ...]:
        """The weights that no pruner could take, the largest first."""
        found = [weight for weight in self.dense if weight.reason == "unsupported"]
        return tuple(sorted(found, key=lambda weight: -weight.parameters))

    @property
    def odd(self) -> bool:
        """Whether weights that no pruner can take hold more than 5 % of the parameters, embeddings left out."""
        embeddings = self.by_reason.get("embedding", 0)
        return self.by_reason.get("unsupported", 0) > _ODD_SHARE * (self.parameters - embeddings)

    def __str__(self) -> str:
        """One line: what is pruned, what stays dense and why, and the largest weight that no pruner can take."""
        line = f"{len(self.pruned)} weights with {self.covered:,} of {self.parameters:,} parameters ({self.share:.1%})"
        parts = [f"{count:,} {reason}" for reason, count in self.by_reason.items()]
        parts += [f"{self.small:,} in biases and normalisation"] if self.small else []
        line += f"; dense: {', '.join(parts)}" if parts else ""
        if self.unsupported:
            first = self.unsupported[0]
            line += f"; largest unsupported weight: {first.name} {first.shape} of {first.module}"
        return line


def coverage(model: nn.Module, pruners: Sequence[Pruner], family: Family | None = None) -> Coverage:
    """What `pruners` take of `model`, and why they leave the rest dense.

    Args:
        pruners: as `attach` made them for this model; none for a dense run.
        family: that `attach` was given; without it, weights outside the encoder count as not chosen.
    """
    takers = {id(weight.parameter): pruner.name for pruner in pruners for weight in pruner.weights}
    family = family or Family("unknown")
    holders: dict[int, list[tuple[str, nn.Module]]] = {}
    parameters: dict[int, nn.Parameter] = {}
    for name, parameter, module in named_parameters(model):
        holders.setdefault(id(parameter), []).append((name, module))
        parameters[id(parameter)] = parameter
    pruned, dense, small = [], [], 0
    for key, parameter in parameters.items():
        shape = tuple(parameter.shape)
        size = math.prod(shape)
        if key in takers:
            pruned.append(PrunedWeight(holders[key][0][0], shape, size, takers[key]))
        elif len(shape) < 2:
            small += size
        else:
            # Tied to an embedding: it could not be pruned without it.
            name, module = next(filter(_is_embedding, holders[key]), holders[key][0])
            reason = _reason(name, module, family, pruners)
            dense.append(DenseWeight(name, shape, size, type(module).__name__, reason))
    return Coverage(tuple(pruned), tuple(dense), small)


@dataclass(frozen=True)
class UnkeptZeros:
    """The zeros of a weight that no pruner takes: training moves them.

    Args:
        name: of the parameter, without the words of wrappers.
        zeros: how many of its numbers are zero.
        parameters: how many numbers it holds.
    """

    name: str
    zeros: int
    parameters: int


def unkept_zeros(model: nn.Module, pruners: Sequence[Pruner]) -> list[UnkeptZeros]:
    """The weights of `model` that no pruner takes, and of which some numbers are zero now; in the order of the model.

    Looked at are trainable parameters of two or more dimensions that hold numbers, embeddings left out (the row of the
    padding is zero). Parameters of modules that pruners cannot take count unless they are wholly zero, since many
    start like that.
    """
    seen = {id(weight.parameter) for pruner in pruners for weight in pruner.weights}
    holders = list(named_parameters(model))
    seen.update(id(parameter) for name, parameter, module in holders if _is_embedding((name, module)))
    found = []
    for name, parameter, module in holders:
        if id(parameter) in seen or not _has_numbers(parameter):
            continue
        seen.add(id(parameter))
        zeros = parameter.numel() - int(torch.count_nonzero(parameter.detach()))
        prunable = is_layer(module) and name.rpartition(".")[2] == "weight"
        if zeros and (prunable or zeros < parameter.numel()):
            found.append(UnkeptZeros(name, zeros, parameter.numel()))
    return found


def _has_numbers(parameter: nn.Parameter) -> bool:
    """Whether a weight is trained and its zeros can be counted: not on meta, lazy, quantized or sharded."""
    if type(parameter) is not nn.Parameter or parameter.is_meta or not parameter.requires_grad:
        return False
    return parameter.ndim > 1


def _is_embedding(holder: tuple[str, nn.Module]) -> bool:
    return any(is_instance_of(holder[1], kind) for kind in ("Embedding", "EmbeddingBag"))


def _reason(name: str, module: nn.Module, family: Family, pruners: Sequence[Pruner]) -> Reason:
    """Why the parameter of that name stays dense, which `module` holds."""
    holder, _, attribute = name.rpartition(".")
    if _is_embedding((name, module)):
        return "embedding"
    if family.is_outside(holder):
        return "outside"
    if attribute != "weight" or not is_layer(module):
        return "unsupported"
    return "excluded" if any(pruner.plan.layers.excludes(holder) for pruner in pruners) else "not chosen"
