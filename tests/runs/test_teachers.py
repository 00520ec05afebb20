"""Teachers: unsuitable ones are refused with a reason, suitable ones are used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertForSequenceClassification, BertTokenizer

    from hydraprune.data.examples import Labels
    from hydraprune.models.tiny import TinyModel

    folder = tmp_path_factory.mktemp("teachers")
    tiny = TinyModel("tiny", 64, 1, 4, 64)
    two = Labels(("negative", "positive"))
    made: dict[str, BertForSequenceClassification] = {
        "same": tiny.load(two),
        "narrow": TinyModel("tiny", 32, 1, 4, 64).load(two),
        "three": tiny.load(Labels(("a", "b", "c"))),
        "short": TinyModel("tiny", 64, 1, 4, 64, max_positions=16).load(two),
        "words": tiny.load(two),
        "other": tiny.load(two),
    }
    for name, model in made.items():
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    other = BertTokenizer(vocab={t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film"])})
    other.save_pretrained(folder / "words")
    return folder


@pytest.mark.parametrize(
    ("name", "distill", "message"),
    [
        ("narrow", "hidden", "hidden size is 32 and the student's 64"),
        ("three", "logits", "3 labels and the task 2"),
        ("short", "logits", "16 positions"),
        ("words", "hidden", "tokenizer differs"),
    ],
)
def test_an_unsuitable_teacher_is_refused(
    name: str,
    distill: str,
    message: str,
    teachers: Path,
    train: Callable[..., Any],
    small: tuple[str, ...],
    workplace: Path,
) -> None:
    finished = train(*small, f"distill={distill}", f"distill.teacher={teachers / name}")
    assert finished.code == 2, finished.err
    assert finished.err.count("\n") == 1
    assert f"distill.teacher={teachers / name}" in finished.err
    assert message in finished.err
    assert list(workplace.iterdir()) == []


def test_hidden_state_distillation_of_a_dense_run_is_refused(
    train: Callable[..., Any], small: tuple[str, ...], teachers: Path
) -> None:
    refused = train(*small[:4], "pattern=dense", "distill=hidden", f"distill.teacher={teachers / 'same'}")
    assert refused.code == 2
    assert "trains no head" in refused.err


def test_hidden_state_distillation_copies_the_head_of_the_teacher(
    teachers: Path, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    from safetensors.torch import load_file

    same = teachers / "same"
    assert train(*small, f"dense.source={teachers / 'other'}", f"distill.teacher={same}").code == 0
    (folder,) = workplace.glob("outputs/toy/tiny/4x1/*")
    student, teacher = load_file(folder / "model" / "model.safetensors"), load_file(same / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias", "bert.pooler.dense.weight"):
        assert student[name].equal(teacher[name])


@pytest.mark.parametrize("distill", ["hidden", "logits"])
def test_a_suitable_teacher_of_the_user(
    distill: str, teachers: Path, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    finished = train(*small, f"distill={distill}", f"distill.teacher={teachers / 'same'}")
    assert finished.code == 0, finished.err


def test_logits_distillation_of_a_regression_is_refused(
    train: Callable[..., Any], workplace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("data") / "scores.csv"
    path.write_text("text,label\n" + "".join(f"the film {i},{i / 10}\n" for i in range(40)))
    words = ("model=tiny", "task=file", f"task.path={path}", "task.regression=true", "task.metrics=[pearson,spearman]")
    refused = train(*words, "distill=logits")
    assert refused.code == 2
    assert "regression" in refused.err
    trained = train(*words, "training.epochs=2", "scheduler.warmup=1", "scheduler.cooldown=1", "training.batch_size=8")
    assert trained.code == 0, trained.err
