"""Classification heads: their modules in every family, and outputs in the order of a task's labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_helpers import SIZES, model_of, save_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hydraprune.data.examples import Labels
from hydraprune.models.classification_head import (
    copy_head,
    head_modules,
    is_below,
    label_names,
    label_order,
    set_labels,
    take_labels,
)
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.runs.model_loading import load_fine_tuned

NAMES = ("negative", "neutral", "positive")
IDS = torch.tensor([[5, 6, 7, 3]])


def outputs(model: nn.Module) -> dict[str, float]:
    with torch.no_grad():
        logits = model(input_ids=IDS).logits[0]
    return {model.config.id2label[place].lower(): float(value) for place, value in enumerate(logits)}  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", SIZES)
def test_numbered_layers_and_embeddings_are_no_part_of_the_head(kind: str) -> None:
    model = model_of(kind)
    head = head_modules(model)
    assert head
    names = [name for name, _ in model.named_parameters()]
    inside = [name for name in names if is_below(name, head)]
    assert 0 < len(inside) < len(names)
    assert not any(word in name for name in inside for word in ("embed", ".layer.", ".layers.", ".h.", ".block."))


@pytest.mark.parametrize("kind", SIZES)
@settings(max_examples=3)
@given(order=st.permutations(range(3)))
def test_outputs_follow_the_order_of_the_labels(kind: str, order: list[int]) -> None:
    torch.manual_seed(0)
    model = model_of(kind, id2label=dict(enumerate(name.title() for name in NAMES)))
    before, labels = outputs(model), Labels(tuple(NAMES[place] for place in order))
    assert take_labels(model, labels) == (order != sorted(order))
    assert tuple(model.config.id2label.values()) == labels.names  # type: ignore[union-attr]
    assert outputs(model) == pytest.approx(before, abs=1e-6)


def test_a_gap_in_the_names_is_no_error() -> None:
    config = model_of("bert").config
    config.id2label = {0: "no", 2: "yes"}  # type: ignore[union-attr]
    assert label_names(config)[0] == "no"
    assert all(label_names(config))
    assert label_order(config, Labels(("no", "yes"))) is None


def test_unknown_names_keep_their_places() -> None:
    model = model_of("bert")
    before = list(outputs(model).values())
    assert label_order(model.config, Labels(("no", "yes"))) is None
    assert not take_labels(model, Labels(("no", "yes")))
    assert outputs(model) == dict(zip(("no", "yes"), before, strict=True))


@pytest.mark.parametrize("kind", ["distilbert", "albert", "qwen2"])
def test_a_saved_head_is_loaded_in_the_order_of_the_task(kind: str, tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path, kind, id2label={0: "yes", 1: "no"}, label2id={"yes": 0, "no": 1})
    source = PretrainedModel("mine", str(tmp_path))
    labels = Labels(("no", "yes"))
    for loaded in (source.load(labels), load_fine_tuned(source, labels, source.tokenizer())):
        assert outputs(loaded.eval()) == pytest.approx(outputs(model), abs=1e-6)
        assert loaded.config.id2label == {0: "no", 1: "yes"}  # type: ignore[union-attr]
    expected = dict(zip(("a", "b"), outputs(model).values(), strict=True))
    assert outputs(source.load(Labels(("a", "b"))).eval()) == pytest.approx(expected, abs=1e-6)


def test_the_kind_of_a_head_is_that_of_the_task() -> None:
    config = model_of("bert", problem_type="multi_label_classification").config
    set_labels(config, Labels(("no", "yes")))
    assert config.problem_type == "single_label_classification"  # type: ignore[union-attr]


def test_the_head_alone_is_copied_from_the_teacher() -> None:
    student, teacher = model_of("electra"), model_of("electra")
    kept = {name: weight.clone() for name, weight in student.named_parameters()}
    copy_head(teacher, student)
    head, theirs = head_modules(student), dict(teacher.named_parameters())
    for name, weight in student.named_parameters():
        assert torch.equal(weight, theirs[name] if is_below(name, head) else kept[name])
    assert any("embeddings_project" in name for name in kept)
