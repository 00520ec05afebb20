"""Metrics against their definitions, without a network, and metrics of the user."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import CSV, write_file
from hypothesis import given, settings
from hypothesis import strategies as st

from hydraprune.data.labels import CLASSES, SCORE
from hydraprune.data.metrics import CLASSIFICATION, REGRESSION, metric, metric_name

pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=40)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_classification_metrics_match_their_definitions(drawn: list[tuple[int, int]]) -> None:
    predictions, references = ([pair[i] for pair in drawn] for i in (0, 1))
    hit = sum(p == r == 1 for p, r in drawn)
    miss = sum(p == 0 and r == 1 for p, r in drawn)
    false = sum(p == 1 and r == 0 for p, r in drawn)
    right = len(drawn) - hit - miss - false
    assert CLASSIFICATION["accuracy"](predictions, references) == pytest.approx((hit + right) / len(drawn))
    f1 = 2 * hit / (2 * hit + miss + false) if hit else 0.0
    assert CLASSIFICATION["f1"](predictions, references) == pytest.approx(f1)
    below = math.sqrt((hit + false) * (hit + miss) * (right + false) * (right + miss))
    matthews = (hit * right - false * miss) / below if below else 0.0
    assert CLASSIFICATION["matthews"](predictions, references) == pytest.approx(matthews)


def test_correlations_match_numpy() -> None:
    generator = np.random.default_rng(0)
    one, two = generator.normal(size=50), generator.normal(size=50)
    assert REGRESSION["pearson"](one, two) == pytest.approx(np.corrcoef(one, two)[0, 1])
    ranks = [values.argsort().argsort() for values in (one, two)]
    assert REGRESSION["spearman"](one, two) == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_metrics_are_an_evaluate_metric_without_a_network() -> None:
    import evaluate

    both = metric(("f1", "accuracy"))
    assert isinstance(both, evaluate.Metric)
    assert both.compute(predictions=[1, 0, 1, 1], references=[1, 0, 0, 1]) == {"f1": 0.8, "accuracy": 0.75}
    scores = metric(("pearson", "spearman")).compute(predictions=[0.1, 0.2, 0.4], references=[1.0, 2.0, 3.0])
    assert scores["spearman"] == pytest.approx(1.0)


def error_rate(predictions: Sequence[float], references: Sequence[float]) -> float:
    return sum(p != r for p, r in zip(predictions, references, strict=True)) / len(references)


def mean_difference(predictions: Sequence[float], references: Sequence[float]) -> float:
    return sum(p - r for p, r in zip(predictions, references, strict=True)) / len(references)


def test_a_function_of_the_user_is_a_metric() -> None:
    both = metric(("accuracy", error_rate), CLASSES)
    assert both.compute(predictions=[1, 0, 1, 1], references=[1, 0, 0, 1]) == {"accuracy": 0.75, "error_rate": 0.25}
    # Scores stay floats even if no built-in metric tells that they are.
    scores = metric((mean_difference,), SCORE).compute(predictions=[0.5, 1.0], references=[0.25, 0.5])
    assert scores == {"mean_difference": 0.375}
    assert [metric_name(item) for item in ("f1", error_rate)] == ["f1", "error_rate"]


METRIC = """
def error_rate(predictions, references):
    return sum(p != r for p, r in zip(predictions, references, strict=True)) / len(references)
"""


def test_a_config_names_a_metric_of_the_user(
    train: Callable[..., Any], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "metrics_of_the_user.py").write_text(METRIC)
    write_file(workplace / "a.csv", CSV)
    monkeypatch.syspath_prepend(str(workplace))
    metrics = "task.metrics=[metrics_of_the_user.error_rate,accuracy]"
    words = ("model=tiny", "task=file", "task.path=a.csv", "pattern=dense", "training.epochs=1")
    assert train(*words, metrics).code == 2
    finished = train(*words, "modules=[metrics_of_the_user]", metrics)
    assert finished.code == 0, finished.err
    (file,) = workplace.glob("outputs/file/tiny/dense/*/report.json")
    report = json.loads(file.read_text())
    assert report["metric"] == "error_rate"
    assert report["final"]["error_rate"] == pytest.approx(1 - report["final"]["accuracy"])
