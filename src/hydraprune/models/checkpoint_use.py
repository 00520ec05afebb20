"""What a model took from its checkpoint, as transformers reports it when it loads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from hydraprune.models.classification_head import POOLER, base_model, is_below
from hydraprune.sparsity.wrappers import WRAPPER_ATTRIBUTES

_ATTRIBUTE = "hydraprune_checkpoint_use"


@dataclass(frozen=True)
class CheckpointUse:
    """The weights of a model and of its checkpoint, by name.

    Args:
        used: number of weights (tensors) of the model that are the checkpoint's.
        missing: weights of the model that the checkpoint lacks.
        reshaped: (weight, shape in the checkpoint, shape in the model), where the shapes differ.
        unused: weights of the checkpoint that the model has no place for, such as another head.
        lost: those of them that belong to the encoder, such as layers that config.json does not count.
    """

    used: int
    missing: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    unused: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def new(self) -> tuple[str, ...]:
        """Weights that are not the checkpoint's and so hold random numbers."""
        return (*self.missing, *(name for name, _, _ in self.reshaped))

    def misfit(self, kind: str, head: Collection[str]) -> tuple[str, str] | None:
        """Why this checkpoint does not match its model, and a cure; None if it does.

        Args:
            kind: the model in words, such as `bert classifier`.
            head: modules whose weights may be new.
        """
        if lost := [name for name in self.missing if not is_below(name, head)]:
            reason = f"lacks {len(lost)} weights of a {kind}, {lost[0]} among them, so they would be random"
            return reason, self._cure()
        if others := [entry for entry in self.reshaped if not is_below(entry[0], head)]:
            name, theirs, ours = others[0]
            more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
            reason = f"{name} is {list(theirs)} in it, and {list(ours)} by its config.json{more}"
            return reason, "give the config.json that belongs to these weights"
        return None

    def _cure(self) -> str:
        for word in ("module", *WRAPPER_ATTRIBUTES):
            if any(name.startswith(f"{word}.") for name in self.unused):
                return f"their names begin with {word}., as in a wrapped model: save the model inside the wrapper"
        if prefix := self._shared_prefix():
            return f"their names begin with {prefix}: save the weights under the names that transformers gives them"
        return "give a whole fine-tuned model, or the right model.type"

    def _shared_prefix(self) -> str:
        """What the names of all unused weights begin with, before the names of missing ones; empty if nothing."""
        for name in self.unused:
            for lost in self.missing:
                if name.endswith(f".{lost}") and all(other.startswith(name[: -len(lost)]) for other in self.unused):
                    return name[: -len(lost)]
        return ""


def use_of(model: nn.Module, info: Mapping[str, Any]) -> CheckpointUse:
    """The use that a model made of its checkpoint.

    Args:
        info: what `from_pretrained(..., output_loading_info=True)` returned beside the model.
    """
    reshaped = tuple(sorted((name, tuple(theirs), tuple(ours)) for name, theirs, ours in info["mismatched_keys"]))
    missing = tuple(sorted(set(info["missing_keys"]) - {name for name, _, _ in reshaped}))
    new = {*missing, *(name for name, _, _ in reshaped)}
    used = sum(name not in new for name, _ in model.named_parameters())
    unused = tuple(sorted(info["unexpected_keys"]))
    return CheckpointUse(used, missing, reshaped, unused, tuple(name for name in unused if _is_encoder(name, model)))


def _is_encoder(name: str, model: nn.Module) -> bool:
    """Whether a weight of a checkpoint belongs to the encoder: to a module that the base model has, but its pooler."""
    prefix, base = base_model(model)
    if base is None:
        return False
    module = name.removeprefix(f"{prefix}.").partition(".")[0]
    return module in dict(base.named_children()) and POOLER not in module and not name.endswith("position_ids")


def remember_use(model: nn.Module, use: CheckpointUse) -> None:
    """Let `checkpoint_use` find the use that a model made of its checkpoint."""
    setattr(model, _ATTRIBUTE, use)


def checkpoint_use(model: nn.Module) -> CheckpointUse | None:
    """The use that a loaded model made of its checkpoint; None for a model with random weights."""
    found: CheckpointUse | None = getattr(model, _ATTRIBUTE, None)
    return found
