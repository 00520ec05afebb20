"""Distillation losses: what a student learns from, the task's labels or a teacher's outputs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.data.batches import Batch
from hydraprune.data.labels import Labels, task_loss
from hydraprune.errors import single_line
from hydraprune.sparsity import check_number

__all__ = ["Distiller", "HiddenStates", "Logits", "NoDistillation", "task_loss"]


class Distiller(ABC):
    """A training loss. A subclass needs `loss` and, to use a teacher, `teacher_outputs`.

    The properties below describe how the teacher is used; a subclass overrides those that differ,
    as attributes, dataclass fields or properties.
    """

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss uses a teacher at all."""
        return True

    @property
    def teacher(self) -> str | None:
        """Folder or hub id of the teacher; None: the model that the run starts from."""
        return None

    @property
    def keeps_head(self) -> bool:
        """Whether the student's pooler and head get no gradient and are copied from the teacher."""
        return False

    @property
    def per_token(self) -> bool:
        """Whether `teacher_outputs` has a row per token (True) or per example (False)."""
        return False

    def rows_per_token(self, head: Labels) -> bool:
        """`per_token` for what a head predicts; by default the same for all."""
        return self.per_token

    @property
    def cacheable(self) -> bool:
        """Whether the teacher's outputs may be stored and reused.

        Only if they depend on the example and on this class alone, not on the rest of the batch or
        on fields of the distiller.
        """
        return False

    @property
    def online(self) -> bool:
        """Whether the teacher runs in every step even where its outputs are cacheable."""
        return False

    @property
    def reads_padding(self) -> bool:
        """Whether the loss or the teacher's outputs depend on hidden states of padded positions.

        Kernels leave these 0, so that PyTorch computes the layers then.
        """
        return True

    def counted(self, batch: Batch) -> int:
        """What the loss is a mean over, rows or tokens: weighed by it, losses of parts of a batch add up to its own."""
        return batch.counted

    def misfit(self, student: Any, teacher: Any) -> str | None:
        """Why a teacher does not fit this student, given their Hugging Face configs; None if it does."""
        return None

    def misfit_on(self, model: nn.Module, batch: Batch) -> str | None:
        """Why the loss cannot be computed on a loaded model, found on a trial batch; None if it can."""
        return None

    def teacher_outputs(self, teacher: nn.Module, batch: Batch) -> Tensor:
        """What the loss needs from the teacher: [batch, length, features] if `per_token`, else [batch, features]."""
        raise NotImplementedError(f"{type(self).__name__} uses no teacher")

    @abstractmethod
    def loss(self, student: nn.Module, batch: Batch, teacher_outputs: Tensor | None) -> Tensor:
        """The loss of one batch, a scalar; `teacher_outputs` is None without a teacher."""


_WITHOUT_TEACHER = "for the task's loss alone use distill=none"


@dataclass(frozen=True)
class NoDistillation(Distiller):
    """The task's own loss, without a teacher."""

    @property
    def reads_padding(self) -> bool:
        return False

    @property
    def needs_teacher(self) -> bool:
        return False

    def loss(self, student: nn.Module, batch: Batch, teacher_outputs: Tensor | None) -> Tensor:
        return batch.loss(batch.outputs(student))


@dataclass(frozen=True)
class HiddenStates(Distiller):
    """Mean squared error of the last hidden states, in place of the task's loss.

    The loss of the published results. Pooler and head get no gradient; the teacher's are kept.

    Args:
        weight: factor of the loss.
        padding: average over padded positions too, as the published script did. Otherwise the mean
            runs over real tokens, each with the same weight in every batch, so that a token's loss
            does not depend on the rest of the batch.
        online: run the teacher in every step, as `padding` always does, instead of once per example.

    Raises:
        SparsityError: `weight` is not above 0.
    """

    weight: float
    padding: bool = False
    teacher: str | None = None
    online: bool = False

    def __post_init__(self) -> None:
        check_number("weight", self.weight, 0, math.inf, cure=_WITHOUT_TEACHER)

    @property
    def reads_padding(self) -> bool:
        return self.padding

    @property
    def keeps_head(self) -> bool:
        return True

    @property
    def per_token(self) -> bool:
        return True

    def counted(self, batch: Batch) -> int:
        return len(batch.labels)

    @property
    def cacheable(self) -> bool:
        # The hidden state of a padded position depends on the length of its batch.
        return not self.padding

    def misfit(self, student: Any, teacher: Any) -> str | None:
        if (student.model_type, student.num_labels) != (teacher.model_type, teacher.num_labels):
            return (
                f"it is a {teacher.model_type} with {teacher.num_labels} labels and the student a "
                f"{student.model_type} with {student.num_labels}, so its head cannot be kept; use distill=logits"
            )
        if student.hidden_size != teacher.hidden_size:
            return (
                f"its hidden size is {teacher.hidden_size} and the student's {student.hidden_size}; "
                f"use distill=logits, or a teacher of the same width"
            )
        return None

    def misfit_on(self, model: nn.Module, batch: Batch) -> str | None:
        inside = _hidden_states_inside(model, batch)
        try:
            alone = _last_hidden_states(model, batch)
        except Exception as error:  # a model's code may raise anything
            return f"the encoder of this model cannot be computed alone ({single_line(error)})"
        mask = batch.mask
        if inside is None or (inside.shape == alone.shape and torch.allclose(inside[mask], alone[mask], atol=1e-5)):
            return None
        return "the encoder of this model alone computes something else than inside the whole model"

    def teacher_outputs(self, teacher: nn.Module, batch: Batch) -> Tensor:
        return _last_hidden_states(teacher, batch)

    def loss(self, student: nn.Module, batch: Batch, teacher_outputs: Tensor | None) -> Tensor:
        assert teacher_outputs is not None
        error = (_last_hidden_states(student, batch).float() - teacher_outputs.float()).square()
        if self.padding:
            return self.weight * error.mean()
        mask = batch.inputs["attention_mask"].unsqueeze(-1)
        # Divided by the tokens of an average batch, not of this one: batches grouped by length differ
        # widely in tokens, and each token should weigh the same.
        tokens = batch.mean_length * len(batch.labels)
        return self.weight * (error * mask).sum() / (tokens * error.shape[-1])


@dataclass(frozen=True)
class Logits(Distiller):
    """`weight` * T^2 * KL(teacher || student), both at temperature T, + (1 - `weight`) * the task's loss.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.
    Not for scores.

    Args:
        online: run the teacher in every step instead of once per example.

    Raises:
        SparsityError: `weight` or `temperature` is out of range.
    """

    weight: float = 0.5
    temperature: float = 2.0
    teacher: str | None = None
    online: bool = False

    def __post_init__(self) -> None:
        check_number("weight", self.weight, 0, 1, to_high=True, cure=_WITHOUT_TEACHER)
        check_number("temperature", self.temperature, 0, math.inf)

    @property
    def reads_padding(self) -> bool:
        return False

    def rows_per_token(self, head: Labels) -> bool:
        return head.output_per_token

    @property
    def cacheable(self) -> bool:
        return True

    def misfit(self, student: Any, teacher: Any) -> str | None:
        if student.problem_type == "regression" or student.num_labels < 2:
            return "logits are compared as classes, and this task is a regression; use distill=hidden or none"
        if student.num_labels != teacher.num_labels:
            return f"it has {teacher.num_labels} labels and the task {student.num_labels}"
        return None

    def teacher_outputs(self, teacher: nn.Module, batch: Batch) -> Tensor:
        return batch.outputs(teacher)

    def loss(self, student: nn.Module, batch: Batch, teacher_outputs: Tensor | None) -> Tensor:
        assert teacher_outputs is not None
        outputs = batch.outputs(student)
        soft = batch.soft_loss(outputs, teacher_outputs, self.temperature)
        return self.weight * self.temperature**2 * soft + (1 - self.weight) * batch.loss(outputs)


def _last_hidden_states(model: nn.Module, batch: Batch) -> Tensor:
    """[batch, length, width], of the encoder alone: this loss needs neither pooler nor head."""
    encoder = model.base_model
    assert isinstance(encoder, nn.Module)
    hidden: Tensor = encoder(**batch.inputs).last_hidden_state
    return hidden


def _hidden_states_inside(model: nn.Module, batch: Batch) -> Tensor | None:
    """[batch, length, width], of the encoder while the whole model runs; None if it runs without this module."""
    encoder = model.base_model
    assert isinstance(encoder, nn.Module)
    seen: list[Any] = []
    hook = encoder.register_forward_hook(lambda _module, _inputs, outputs: seen.append(outputs))
    try:
        batch.outputs(model)
    finally:
        hook.remove()
    hidden = seen[-1][0] if seen else None
    return hidden if isinstance(hidden, Tensor) else None
