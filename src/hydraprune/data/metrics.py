"""How good are predictions? GLUE's metrics as an `evaluate` metric that needs no network.

`evaluate.load("glue", ...)` fetches its script from the hub; this one is built from the same
library calls and gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Score = Callable[[Sequence[float], Sequence[float]], float]


def _accuracy(predictions: Sequence[float], references: Sequence[float]) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(references, predictions))


def _f1(predictions: Sequence[float], references: Sequence[float]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, zero_division=0.0))


def _f1_macro(predictions: Sequence[float], references: Sequence[float]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average="macro", zero_division=0.0))


def _matthews(predictions: Sequence[float], references: Sequence[float]) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(references, predictions))


def _pearson(predictions: Sequence[float], references: Sequence[float]) -> float:
    from scipy.stats import pearsonr

    return float(pearsonr(predictions, references)[0])


def _spearman(predictions: Sequence[float], references: Sequence[float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(predictions, references)[0])


CLASSIFICATION: dict[str, Score] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "f1_macro": _f1_macro,
    "matthews": _matthews,
}
# Of class 1 against class 0.
BINARY = ("f1",)
REGRESSION: dict[str, Score] = {"pearson": _pearson, "spearman": _spearman}


def metric(names: Sequence[str]) -> Any:
    """An `evaluate.Metric` that computes the named scores together.

    `f1` is that of class 1, as in GLUE. A correlation of constant predictions is NaN, as in GLUE.
    """
    # Imported here: it takes seconds, which `--help` and validation should not.
    import datasets
    import evaluate

    # Now, not with the first evaluation: what is imported with them draws from Python's generator, and a run that
    # goes on from a checkpoint would find it elsewhere than one that was never cut.
    import sklearn.metrics  # noqa: F401

    scores = {**CLASSIFICATION, **REGRESSION}
    kind = "float64" if any(name in REGRESSION for name in names) else "int64"

    class TextMetric(evaluate.Metric):  # type: ignore[misc]
        def _info(self) -> Any:
            features = datasets.Features({"predictions": datasets.Value(kind), "references": datasets.Value(kind)})
            return evaluate.MetricInfo(
                description="GLUE's scores", citation="", inputs_description="", features=features
            )

        def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
            return {name: scores[name](predictions, references) for name in names}

    return TextMetric(keep_in_memory=True)
