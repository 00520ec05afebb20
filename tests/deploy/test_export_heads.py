"""Exports of models with other heads than a classifier's: checked against torch as all are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from family_helpers import save_checkpoint
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
)

HEADS = {
    "answers": ("bert", AutoModelForQuestionAnswering),
    "choices": ("bert", AutoModelForMultipleChoice),
    "hidden tokens": ("bert", AutoModelForMaskedLM),
    "next tokens": ("gpt2", AutoModelForCausalLM),
}


@pytest.mark.parametrize("target", ["onnx", "compact"])
@pytest.mark.parametrize("head", sorted(HEADS))
def test_exports(head: str, target: str, hydraprune: Callable[..., Any], workplace: Path) -> None:
    kind, made = HEADS[head]
    save_checkpoint(workplace / "model", kind, made)
    exported = hydraprune("export", "model", "--to", target, "--out", "exported")
    assert exported.code == 0, exported.err
    assert "relative error of the logits" in exported.out
    assert any((workplace / "exported").iterdir())


def test_a_bench_wants_a_classifier(hydraprune: Callable[..., Any], workplace: Path) -> None:
    save_checkpoint(workplace / "model", "bert", AutoModelForQuestionAnswering)
    refused = hydraprune("bench", "model")
    assert refused.code == 2
    assert "is no classifier (BertForQuestionAnswering); give a model for sequence classification" in refused.err
