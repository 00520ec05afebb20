"""Small models ready for training, some of whose weights are masked, and their layers computed over live blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from family_helpers import SIZES, model_of
from kernel_helpers import FOLDER
from torch import Tensor, nn
from trained_layer_helpers import training_kernels

from hydraprune.kernels import dropout
from hydraprune.kernels.dropout import use_fast_dropout
from hydraprune.models.attention import choose_attention
from hydraprune.models.live_layers import LiveLayers

SIZES.setdefault("xlm-roberta", SIZES["roberta"])
SIZES.setdefault("camembert", SIZES["roberta"])
KINDS = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
LENGTHS = (17, 9, 1, 70)


@dataclass(frozen=True)
class Live:
    """A model, its layers, and the masks of their weights."""

    model: Any
    layers: LiveLayers
    masks: dict[int, Tensor]
    calls: list[int]  # how many layers the kernels have computed

    def use(self) -> None:
        self.layers.use(self.masks)


def trainable(kind: str, seed: int = 0, **more: Any) -> Any:
    """A model as `runs.setup` prepares it for a CPU, in training mode; positions for 100 tokens."""
    torch.manual_seed(seed)
    model = model_of(kind, max_position_embeddings=102, **more)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    choose_attention(model, torch.device("cpu"))
    use_fast_dropout(model)
    return model.train()


def live(model: Any, density: float = 0.3) -> Live:
    """Prune a model's layers to some live blocks of 4x1."""
    calls, masks = [0], {}
    functions: Any = _Counted(training_kernels(), calls)
    made = LiveLayers(model.base_model, functions)
    with torch.no_grad():
        for weight in made.weights:
            outputs, inputs = weight.shape
            mask = (torch.rand(outputs // 4, inputs) < density).repeat_interleave(4, 0)
            weight.mul_(mask)
            masks[id(weight)] = mask
    return Live(model, made, masks, calls)


class _Counted:
    """Compiled functions; counts forward passes of layers."""

    def __init__(self, functions: Any, calls: list[int]) -> None:
        self._functions, self._calls = functions, calls

    def __getattr__(self, name: str) -> Any:
        self._calls[0] += name == "hydraprune_layer_forward"
        return getattr(self._functions, name)


def batch(lengths: tuple[int, ...] = LENGTHS) -> dict[str, Tensor]:
    """Padded texts and their labels."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 20, mask.shape, generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(len(lengths)) % 2}


@dataclass(frozen=True)
class Pass:
    """What a forward and a backward pass left."""

    outputs: Any
    generator: Tensor
    gradients: dict[str, Tensor]


def run(model: nn.Module, inputs: dict[str, Tensor], **more: Any) -> Pass:
    """With the same random numbers every time."""
    torch.manual_seed(5)
    model.zero_grad()
    outputs = model(**inputs, **more)
    if outputs.loss.requires_grad:
        outputs.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return Pass(outputs, torch.get_rng_state(), gradients)


def assert_equal_passes(found: Pass, wanted: Pass, masks: dict[str, Tensor], tolerance: float = 2e-5) -> None:
    """Up to rounding, with the same random numbers; gradients where weights are live."""
    assert torch.equal(found.generator, wanted.generator)
    for name in ("loss", "logits"):
        one, other = (each.outputs[name].detach().float() for each in (found, wanted))
        torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=10 * tolerance)
    assert set(found.gradients) == set(wanted.gradients)
    whole = torch.stack([gradient.norm() for gradient in wanted.gradients.values()]).max()
    for name, gradient in wanted.gradients.items():
        kept = gradient * masks.get(name, torch.tensor(1.0))
        error = (found.gradients[name] - kept).norm()
        assert error <= tolerance * kept.norm() + tolerance / 10 * whole, f"{name}: {error} of {kept.norm()}"


def masks_by_name(one: Live) -> dict[str, Tensor]:
    return {name: one.masks[id(p)] for name, p in one.model.named_parameters() if id(p) in one.masks}


def with_compiled_dropout(use: Callable[[], Any]) -> Any:
    """The result of a function that runs with compiled dropout."""
    assert dropout.use_compiled(FOLDER)
    try:
        return use()
    finally:
        dropout.use_compiled(None)
