"""What does the student learn from? The task's loss, or a teacher's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from hydraprune.data.batches import Batch


class Distiller(Protocol):
    """A loss. `teacher` is where its teacher comes from; None is the model that the run starts from."""

    @property
    def needs_teacher(self) -> bool: ...

    @property
    def keeps_head(self) -> bool:
        """Whether the student's pooler and head get no gradient, and are to be the teacher's."""

    @property
    def teacher(self) -> str | None: ...

    @property
    def per_token(self) -> bool:
        """Whether a teacher answers for every token, or once for an example."""

    @property
    def storable(self) -> bool:
        """Whether a teacher's answers may be kept: they hang on the example and this class, not on batch or fields."""

    @property
    def online(self) -> bool:
        """Whether the teacher is to be asked anew in every step, even where its answers may be kept."""

    def misfit(self, student: Any, teacher: Any) -> str | None:
        """Why a teacher with this config cannot teach this student; None when it can."""

    def ask(self, teacher: nn.Module, batch: Batch) -> Tensor:
        """What the loss needs to know of the teacher."""

    def loss(self, student: nn.Module, batch: Batch, answers: Tensor | None) -> Tensor:
        """The loss of one batch, a scalar."""


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy for whole-number labels, mean squared error for scores. `logits` [batch, outputs]."""
    if labels.is_floating_point():
        return F.mse_loss(logits.float().squeeze(-1), labels)
    return F.cross_entropy(logits.float(), labels)


def _check_weight(weight: float, most: float) -> None:
    if not 0.0 < weight <= most or weight == float("inf"):
        limit = "" if most == float("inf") else f" and at most {most:g}"
        raise ValueError(f"weight={weight}: must be above 0{limit}; for the task's loss alone use distill=none")


@dataclass(frozen=True)
class NoDistillation:
    """The task's own loss."""

    @property
    def needs_teacher(self) -> bool:
        return False

    @property
    def keeps_head(self) -> bool:
        return False

    @property
    def teacher(self) -> str | None:
        return None

    @property
    def per_token(self) -> bool:
        return False

    @property
    def storable(self) -> bool:
        return False

    @property
    def online(self) -> bool:
        return False

    def misfit(self, student: Any, teacher: Any) -> str | None:
        return None

    def ask(self, teacher: nn.Module, batch: Batch) -> Tensor:
        raise TypeError("there is no teacher to ask")

    def loss(self, student: nn.Module, batch: Batch, answers: Tensor | None) -> Tensor:
        return task_loss(student(**batch.inputs).logits, batch.labels)


@dataclass(frozen=True)
class HiddenStates:
    """`weight` * mean squared error of the last hidden states, in place of the task's loss.

    The loss of the published results. Pooler and head get no gradient: the teacher's are kept.
    With `padding` the mean also runs over padded positions, as in the published script; without,
    over real tokens only and a token weighs the same in every batch, so that its loss does not
    depend on what shares its batch. `online` asks
    the teacher anew in every step, as `padding` always does, in place of once.
    """

    weight: float
    padding: bool = False
    teacher: str | None = None
    online: bool = False

    def __post_init__(self) -> None:
        _check_weight(self.weight, float("inf"))

    @property
    def needs_teacher(self) -> bool:
        return True

    @property
    def keeps_head(self) -> bool:
        return True

    @property
    def per_token(self) -> bool:
        return True

    @property
    def storable(self) -> bool:
        # A padded position's state depends on how far its batch is padded.
        return not self.padding

    def misfit(self, student: Any, teacher: Any) -> str | None:
        if (student.model_type, student.num_labels) != (teacher.model_type, teacher.num_labels):
            return (
                f"it is a {teacher.model_type} with {teacher.num_labels} labels and the student a "
                f"{student.model_type} with {student.num_labels}, and its head is to be kept; use distill=logits"
            )
        if student.hidden_size != teacher.hidden_size:
            return (
                f"its hidden size is {teacher.hidden_size} and the student's {student.hidden_size}; "
                f"use distill=logits, or a teacher of the same width"
            )
        return None

    def ask(self, teacher: nn.Module, batch: Batch) -> Tensor:
        return _last_hidden(teacher, batch)

    def loss(self, student: nn.Module, batch: Batch, answers: Tensor | None) -> Tensor:
        assert answers is not None
        error = (_last_hidden(student, batch).float() - answers.float()).square()
        if self.padding:
            return self.weight * error.mean()
        real = batch.inputs["attention_mask"].unsqueeze(-1)
        # By the tokens that a batch has on average, not by its own: grouped by length, batches have
        # very different numbers, and a token should weigh the same in all of them.
        usual = batch.mean_length * len(batch.labels)
        return self.weight * (error * real).sum() / (usual * error.shape[-1])


@dataclass(frozen=True)
class Logits:
    """`weight` * T^2 * KL(teacher || student), both at temperature T, + (1 - `weight`) * the task's loss.

    Hinton et al. 2015, arXiv:1503.02531. Classification only. `online` asks the teacher anew in
    every step, in place of once.
    """

    weight: float = 0.5
    temperature: float = 2.0
    teacher: str | None = None
    online: bool = False

    def __post_init__(self) -> None:
        _check_weight(self.weight, 1.0)
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}: must be above 0")

    @property
    def needs_teacher(self) -> bool:
        return True

    @property
    def keeps_head(self) -> bool:
        return False

    @property
    def per_token(self) -> bool:
        return False

    @property
    def storable(self) -> bool:
        return True

    def misfit(self, student: Any, teacher: Any) -> str | None:
        if student.problem_type == "regression" or student.num_labels < 2:
            return "logits are compared as classes, and this task is a regression; use distill=hidden or none"
        if student.num_labels != teacher.num_labels:
            return f"it has {teacher.num_labels} labels and the task {student.num_labels}"
        return None

    def ask(self, teacher: nn.Module, batch: Batch) -> Tensor:
        answers: Tensor = teacher(**batch.inputs).logits
        return answers

    def loss(self, student: nn.Module, batch: Batch, answers: Tensor | None) -> Tensor:
        assert answers is not None
        logits = student(**batch.inputs).logits
        soft = F.kl_div(
            F.log_softmax(logits.float() / self.temperature, dim=-1),
            F.log_softmax(answers.float() / self.temperature, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        return self.weight * self.temperature**2 * soft + (1 - self.weight) * task_loss(logits, batch.labels)


def _last_hidden(model: nn.Module, batch: Batch) -> Tensor:
    # The encoder alone: pooler and head play no part in this loss.
    encoder = model.base_model
    assert isinstance(encoder, nn.Module)
    hidden: Tensor = encoder(**batch.inputs).last_hidden_state
    return hidden
