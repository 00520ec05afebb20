"""A layer in training: random parameters and batches, and the same layer in operations of PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from kernel_helpers import FOLDER, TARGETS, skip_unless_runs
from torch import Tensor, nn

from hydraprune.kernels import dropout
from hydraprune.kernels.dropout import DropoutKey, draw_key
from hydraprune.kernels.training import Dropouts, LayerParameters, LayerShape, TrainedLayer, compile_training

NO_DROPOUT = Dropouts()
# What `gradients` returns, in order.
NAMES = (
    "x",
    *(f"{kind} {name}" for kind in ("weight", "bias") for name in ("query", "key", "value", "output", "in", "out")),
    *(f"norm {kind} {place}" for kind in ("weight", "bias") for place in range(2)),
)
_ACTIVATIONS = {
    "gelu": nn.functional.gelu,
    "gelu_tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "relu": nn.functional.relu,
}


@lru_cache
def training_kernels(target: str = "native") -> Any:
    """The kernels of training for one of `TARGETS`; skips the test where this machine cannot compile or run them."""
    skip_unless_runs(target)
    return compile_training(FOLDER, TARGETS[target])


@dataclass(frozen=True)
class Sizes:
    """Of a layer; its heads together may be narrower than it."""

    hidden: int = 24
    heads: int = 3
    size: int = 8
    inner: int = 52
    activation: str = "gelu"


def parameters(sizes: Sizes, density: float, scale: float = 1.0) -> tuple[LayerParameters, list[Tensor]]:
    """Parameters from torch's global generator, and which weights are in live blocks of 4x1; the others are 0.

    Args:
        density: probability of a live block.
        scale: of the first layer's outputs of the feed-forward network.
    """
    rows = sizes.heads * sizes.size
    shapes = [(rows, sizes.hidden)] * 3 + [(sizes.hidden, rows), (sizes.inner, sizes.hidden)]
    shapes.append((sizes.hidden, sizes.inner))
    live = [(torch.rand(o // 4, i) < density).repeat_interleave(4, 0) for o, i in shapes]
    weights = [torch.randn(mask.shape) / math.sqrt(max(1.0, density * mask.shape[1])) * mask for mask in live]
    weights[4] *= scale
    biases = [0.1 * torch.randn(outputs) for outputs, _ in shapes]
    norms = [1 + 0.1 * torch.randn(sizes.hidden) for _ in range(2)]
    norm_biases = [0.1 * torch.randn(sizes.hidden) for _ in range(2)]
    made: list[Any] = [tuple(nn.Parameter(t) for t in group) for group in (weights, biases, norms, norm_biases)]
    return LayerParameters(*made), live


def keys(rates: Sequence[float]) -> Dropouts:
    """Keys from torch's global generator; of attention weights, attention output and feed-forward network."""
    return Dropouts(*(draw_key(rate) for rate in rates))


@dataclass(frozen=True)
class Case:
    """A layer and a batch."""

    sizes: Sizes
    parameters: LayerParameters
    live: list[Tensor]
    x: Tensor
    lengths: Tensor
    dropouts: Dropouts
    dy: Tensor

    @property
    def real(self) -> Tensor:
        """bool [examples, tokens, 1]: no padding."""
        return (torch.arange(self.x.shape[1]) < self.lengths[:, None])[:, :, None]

    def layer(self, target: str = "native") -> TrainedLayer:
        shape = LayerShape(self.sizes.heads, self.sizes.activation, (1e-12, 1e-5))
        return TrainedLayer(training_kernels(target), shape, self.parameters, self.live)

    def gradients(self, y: Tensor) -> list[Tensor]:
        """Of x and of every parameter, in the order of `NAMES`."""
        return list(torch.autograd.grad(y, [self.x, *self.parameters.flat()], self.dy.to(y.dtype)))

    def computed(self, target: str = "native") -> list[Tensor]:
        """The output and the gradients."""
        y = self.layer(target)(self.x, self.lengths, self.dropouts)
        return [y.detach(), *self.gradients(y)]

    def expected(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """The same by operations of PyTorch, in this precision; gradients of weights in live blocks alone."""
        x = self.x.detach().to(dtype).requires_grad_()
        cast = [nn.Parameter(tensor.detach().to(dtype)) for tensor in self.parameters.flat()]
        given = LayerParameters(tuple(cast[:6]), tuple(cast[6:12]), (cast[12], cast[13]), (cast[14], cast[15]))
        y, _ = reference(replace(self, x=x, parameters=given))
        y = y * self.real
        found = replace(self, x=x, parameters=given).gradients(y)
        masks = [None, *self.live, *[None] * 10]
        return [y.detach(), *(g if mask is None else g * mask for g, mask in zip(found, masks, strict=True))]

    @property
    def nearest_to_zero(self) -> float:
        """Of the inputs of activations, where that of ReLU has a step."""
        return float(reference(self)[1].detach()[self.real[:, :, 0]].abs().min())


def case(
    sizes: Sizes,
    lengths: Sequence[int],
    density: float = 0.3,
    rates: Sequence[float] = (0.0, 0.0, 0.0),
    padding: int = 0,
    scale: float = 1.0,
) -> Case:
    """From torch's global generator; `padding`: tokens behind the end of the longest text."""
    given, live = parameters(sizes, density, scale)
    shape = (len(lengths), max(lengths) + padding, sizes.hidden)
    x, dy = torch.randn(shape).requires_grad_(), torch.randn(shape)
    return Case(sizes, given, live, x, torch.tensor(lengths, dtype=torch.int32), keys(rates), dy)


def _drop(x: Tensor, key: DropoutKey | None) -> Tensor:
    return x if key is None else dropout._FastDropoutFunction.apply(x, key)  # type: ignore[no-untyped-call,no-any-return]


def reference(case: Case) -> tuple[Tensor, Tensor]:
    """The layer's output, and the inputs of its activation."""
    p, (examples, tokens, hidden) = case.parameters, case.x.shape

    def linear(which: int, x: Tensor) -> Tensor:
        return nn.functional.linear(x, p.weights[which], p.biases[which])

    def norm(which: int, x: Tensor, epsilon: float) -> Tensor:
        return nn.functional.layer_norm(x, (hidden,), p.norm_weights[which], p.norm_biases[which], epsilon)

    q, k, v = (linear(i, case.x).view(examples, tokens, case.sizes.heads, -1).transpose(1, 2) for i in range(3))
    scores = (q / math.sqrt(case.sizes.size)) @ k.transpose(2, 3)
    scores = scores.masked_fill(~case.real.view(examples, 1, 1, tokens), -1e30)
    context = _drop(scores.softmax(-1), case.dropouts.weights) @ v
    context = context.transpose(1, 2).reshape(examples, tokens, -1)
    attended = norm(0, _drop(linear(3, context), case.dropouts.attention) + case.x, 1e-12)
    inner = linear(4, attended)
    out = linear(5, _ACTIVATIONS[case.sizes.activation](inner))
    return norm(1, _drop(out, case.dropouts.ffn) + attended, 1e-5), inner


def assert_near(case: Case, found: Sequence[Tensor]) -> None:
    """Assert that output and gradients are as near to those in float64 as those of PyTorch in float32 are.

    A sum of n float32 numbers is off by about n^0.5 2^-24 of their norm, 1e-5 for tens of thousands. Where terms cancel
    (the gradient of key biases is 0) that is relative to the terms: PyTorch's own error says how large they are, and
    the slopes of the output where it happens to have none.
    """
    wanted, single, least = case.expected(), case.expected(torch.float32), 1e-7 * float(case.dy.norm())
    for name, one, exact, other in zip(("y", *NAMES), found, wanted, single, strict=True):
        error, own = float((one.double() - exact).norm()), float((other.double() - exact).norm())
        assert error <= 1e-5 * float(exact.norm()) + 8 * own + least, f"{name}: {error} of {float(exact.norm())}, {own}"
