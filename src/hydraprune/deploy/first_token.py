"""Classifiers, which read the first token of their encoder's last layer and nothing else of it.

While such a model is called, its encoder computes the last layer for first tokens alone. An encoder that is called by
itself computes all of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from hydraprune.models.classification_head import base_model, head_modules

# `encoder`: that of the classifier which this thread is calling, until it is called.
_calls = threading.local()
_HEAD = "ForSequenceClassification"
_TAKES_FIRST = "DistilBertForSequenceClassification"


class FirstTokenOutput(NamedTuple):
    """What a classifier reads of its encoder's output, without the time that transformers' own class takes.

    Args:
        last_hidden_state: [texts, 1, hidden].
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None
    hidden_states: None = None
    attentions: None = None


def reads_first_token(model: nn.Module) -> bool:
    """Whether a model with a fused encoder is a classifier as transformers has it, all modules of its head included."""
    _, base = base_model(model)
    if base is None or not type(model).__name__.endswith(_HEAD) or not _is_stock(model):
        return False
    head = [module for name in head_modules(model) for module in model.get_submodule(name).modules()]
    # What takes the first token is DistilBERT's class itself, and a module of transformers in the others: a layer of
    # PyTorch in its place is given all tokens.
    takes_first = type(model).__name__ == _TAKES_FIRST or any(map(_is_of_transformers, head))
    return takes_first and all(map(_is_stock, head))


def _is_of_transformers(module: nn.Module) -> bool:
    return type(module).__module__.startswith("transformers.")


def _is_stock(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("transformers.", "torch.nn.")) and "forward" not in vars(module)


def compute_first_token(model: nn.Module) -> None:
    """Make the encoder of a classifier for which `reads_first_token` holds compute no more than is read."""
    model.register_forward_pre_hook(_Begin(model))
    model.register_forward_hook(_end, always_call=True)


def is_enough(encoder: nn.Module) -> bool:
    """Whether a call of an encoder, which has just begun, is that of the classifier that is being called.

    It is so once for each call of a classifier: whatever else calls the encoder meanwhile gets all tokens.
    """
    if getattr(_calls, "encoder", None) is not encoder:
        return False
    _calls.encoder = None
    return True


class _Begin:
    """Called before a classifier is: its head must still be as it was, and nothing may look on or come between."""

    def __init__(self, model: nn.Module) -> None:
        self._head = list(_beside(model, base_model(model)[1]))

    def __call__(self, model: nn.Module, *_: Any) -> None:
        base = base_model(model)[1]
        # Another hook may call the encoder itself.
        is_alone = len(model._forward_pre_hooks) == 1 and "forward" not in vars(model)
        head = list(_beside(model, base))
        _calls.encoder = base if is_alone and head == self._head and not any(map(_is_watched, head)) else None


def _beside(model: nn.Module, base: nn.Module | None) -> Iterator[nn.Module]:
    """The modules of a head, and those in the encoder: its pooler. `nn.Module.modules` takes four times as long."""
    for module in model._modules.values():
        if module is not None:
            if module is not base:
                yield module
            yield from _beside(module, None)


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module))


def _end(*_: Any) -> None:
    _calls.encoder = None
