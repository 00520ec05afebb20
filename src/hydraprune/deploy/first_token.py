"""Classifiers, which read the first token of their encoder's last layer and nothing else of it.

While such a model is called, its encoder computes the last layer for first tokens alone. An encoder that is called by
itself computes all of it.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from torch import Tensor, nn

from hydraprune.models.classification_head import base_model, head_modules

_calls = threading.local()
_HEAD = "ForSequenceClassification"


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
    head = [module for name in head_modules(model) for module in model.get_submodule(name).modules()]
    return base is not None and type(model).__name__.endswith(_HEAD) and all(map(_is_stock, (model, *head)))


def _is_stock(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("transformers.", "torch.nn.")) and "forward" not in vars(module)


def compute_first_token(model: nn.Module) -> None:
    """Make the encoder of a classifier compute no more than is read."""
    model.register_forward_pre_hook(_begin)
    model.register_forward_hook(_end, always_call=True)


def is_enough() -> bool:
    """Whether what is computed in this thread now is for a classifier."""
    return getattr(_calls, "running", 0) > 0


def _begin(*_: Any) -> None:
    _calls.running = getattr(_calls, "running", 0) + 1


def _end(*_: Any) -> None:
    _calls.running -= 1
