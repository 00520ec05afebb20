"""How far an exported model's outputs are from those of the torch model, on the same texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hydraprune.deploy.text_batches import Inputs
from hydraprune.errors import UserError
from hydraprune.models.head_classes import model_outputs

# An engine's model: arrays by input name -> logits [batch, labels].
Run = Callable[[dict[str, Any]], Any]
# Largest relative error of an export in single precision.
LIMIT = 1e-4


@dataclass(frozen=True)
class Comparison:
    """The outputs of an exported model beside those of torch.

    Args:
        error: norm of the difference of all logits / norm of torch's.
        same: texts with the same label (the largest logit), or the same for every token; all where there is one score.
        texts, batches: that were compared.
        longest: tokens of the longest.
    """

    error: float
    same: int
    texts: int
    batches: int
    longest: int

    def __str__(self) -> str:
        return (
            f"relative error of the logits {self.error:.1e}, same label for {self.same} of {self.texts} texts "
            f"of up to {self.longest} tokens in {self.batches} padded batches"
        )


def compare(model: nn.Module, run: Run, batches: Sequence[Inputs]) -> Comparison:
    """Compute some batches with torch and with an exported model.

    Args:
        model: the torch model, on the CPU and in evaluation mode.

    Raises:
        UserError: the exported model's outputs have another shape, or are not finite.
    """
    difference = total = 0.0
    same = texts = 0
    for inputs in batches:
        with torch.inference_mode():
            expected = model_outputs(model, inputs)
        found = torch.from_numpy(run({name: tensor.numpy() for name, tensor in inputs.items()}))
        if found.shape != expected.shape or not bool(found.isfinite().all()):
            shapes = f"{list(found.shape)}, torch's {list(expected.shape)}"
            raise UserError(f"the exported model gives wrong outputs (shape {shapes}, or not finite)", key="MODEL")
        difference += float((found - expected).double().square().sum())
        total += float(expected.double().square().sum())
        equal = found.argmax(-1) == expected.argmax(-1)
        same += int(equal.reshape(len(expected), -1).all(-1).sum())
        texts += len(expected)
    longest = max(inputs["input_ids"].shape[1] for inputs in batches)
    return Comparison((difference / max(total, 1e-30)) ** 0.5, same, texts, len(batches), longest)


def refuse_above_limit(found: Comparison, engine: str) -> None:
    """Refuse an export in single precision whose outputs differ by more than rounding.

    Raises:
        UserError: the relative error is above `LIMIT`.
    """
    if found.error > LIMIT:
        reason = f"{engine} computes other outputs than torch: {found}; at most {LIMIT:g} is rounding"
        raise UserError(reason, key="MODEL", cure="nothing was written")
