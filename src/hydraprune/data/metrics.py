"""Metrics of predictions: those of GLUE, and functions of the user.

`evaluate.load("glue", ...)` downloads its script from the hub; `metric` builds an `evaluate.Metric`
from the same library calls, with the same numbers and without a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# (predictions, references) -> value; higher is better. Classes are integers, scores of a regression floats. The value
# is reported under the function's name. The first metric of a task is its headline: it chooses the best epoch.
Metric = Callable[[Sequence[float], Sequence[float]], float]


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


CLASSIFICATION: dict[str, Metric] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "f1_macro": _f1_macro,
    "matthews": _matthews,
}
# Of class 1 against class 0.
BINARY = ("f1",)
# Zero by definition if all references are of one class.
NEEDS_TWO_CLASSES = ("f1", "matthews")
REGRESSION: dict[str, Metric] = {"pearson": _pearson, "spearman": _spearman}


def metric_name(metric: str | Metric) -> str:
    """The name under which a metric is reported: that of the function."""
    return metric if isinstance(metric, str) else str(getattr(metric, "__name__", type(metric).__name__))


def metric(metrics: Sequence[str | Metric], regression: bool | None = None) -> Any:
    """An `evaluate.Metric` that computes several metrics together.

    `f1` is that of class 1, as in GLUE. A correlation of constant predictions is NaN, as in GLUE.

    Args:
        metrics: names of built-in metrics, or functions.
        regression: whether predictions are scores; None: if one of the names is a metric of scores.
    """
    # Imported here: it takes seconds, which `--help` and validation should not.
    import datasets
    import evaluate

    # Now rather than at the first evaluation: its dependencies draw from Python's random generator at import, and a
    # resumed run would find the generator in another state than an uninterrupted one.
    import sklearn.metrics  # noqa: F401

    functions: Mapping[str, Metric] = {
        metric_name(item): {**CLASSIFICATION, **REGRESSION}[item] if isinstance(item, str) else item for item in metrics
    }
    if regression is None:
        regression = any(name in REGRESSION for name in functions)
    dtype = "float64" if regression else "int64"

    class TextMetric(evaluate.Metric):  # type: ignore[misc]
        def _info(self) -> Any:
            features = datasets.Features({"predictions": datasets.Value(dtype), "references": datasets.Value(dtype)})
            return evaluate.MetricInfo(
                description="GLUE's scores", citation="", inputs_description="", features=features
            )

        def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
            return {name: float(function(predictions, references)) for name, function in functions.items()}

    return TextMetric(keep_in_memory=True)
