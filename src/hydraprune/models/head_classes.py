"""Which class of transformers has the head that a task needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from hydraprune.data.choice_labels import Choices
from hydraprune.data.labels import CLASSES, Labels, Problem
from hydraprune.data.span_labels import Spans
from hydraprune.errors import UserError

_CLASSES: dict[Problem, Any] = {
    "sequence classification": AutoModelForSequenceClassification,
    "token classification": AutoModelForTokenClassification,
    "question answering": AutoModelForQuestionAnswering,
    "multiple choice": AutoModelForMultipleChoice,
    "causal language modelling": AutoModelForCausalLM,
    "masked language modelling": AutoModelForMaskedLM,
}
# Those whose outputs are not the `logits` of a model as it is called.
_HEADS: dict[Problem, Labels] = {"question answering": Spans(), "multiple choice": Choices()}
_CURES: dict[Problem, str] = {
    "sequence classification": "task=text trains a decoder, and other tasks have heads of their own (docs/tasks.md)",
    "causal language modelling": "use task=masked_text, or a decoder",
    "masked language modelling": "use task=text, or an encoder",
}
# Ends of the names of classes in config.json.
_ENDS: dict[str, Problem] = {
    "ForTokenClassification": "token classification",
    "ForQuestionAnswering": "question answering",
    "ForQuestionAnsweringSimple": "question answering",  # of XLNet, XLM and FlauBERT
    "ForMultipleChoice": "multiple choice",
    "ForCausalLM": "causal language modelling",
    "WithLMHeadModel": "masked language modelling",  # of XLM and FlauBERT
    "LMHeadModel": "causal language modelling",
    "ForMaskedLM": "masked language modelling",
}


def problem_of(config: Any) -> Problem:
    """What the head of a saved model is for, by the class that its config.json names; else sequence classification."""
    return _problem(str((getattr(config, "architectures", None) or [""])[0]))


def _problem(name: str) -> Problem:
    return next((problem for end, problem in _ENDS.items() if name.endswith(end)), "sequence classification")


def model_outputs(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """The outputs of a model's head as one tensor, see `Labels.outputs`: [rows, outputs] or [rows, length, outputs].

    Of question answering the logits of start and end, [rows, length, 2]; of multiple choice a score a row, [rows, 1].
    """
    return _HEADS.get(_problem(type(model).__name__), CLASSES).outputs(model, inputs)


def head_class(config: Any, labels: Labels | None) -> Any:
    """The `AutoModelFor...` class for some labels; without labels, that of the saved model.

    Args:
        config: of the model.

    Raises:
        UserError: its family has no such class.
    """
    problem = problem_of(config) if labels is None else labels.problem
    made = _CLASSES[problem]
    if type(config) not in made._model_mapping and not getattr(config, "auto_map", None):
        raise UserError(
            f"transformers has no {config.model_type} model with a head for {problem}", cure=_CURES.get(problem)
        )
    return made
