"""Metrics of predictions: those of GLUE, and functions of the user.

`evaluate.load("glue", ...)` downloads its script from the hub; `metric` builds an `evaluate.Metric`
from the same library calls, with the same numbers and without a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydraprune.data.answers import answer_f1, exact_match
from hydraprune.data.entities import entity_f1, entity_precision, entity_recall, tag_accuracy
from hydraprune.data.labels import CLASSES, SCORE, Labels

# (predictions, references) -> value; higher is better, but for `metric_direction.ERRORS`. Classes are integers, scores
# of a regression floats, label sets lists of 0 and 1, tags lists of their names, choices their numbers. An answer is a
# text, its reference a list of texts. Of a row of running text there is [summed loss, tokens predicted rightly]; its
# reference is the number of tokens. The value is reported under the function's name. The first metric of a task is its
# headline: it chooses the best epoch.
Metric = Callable[[Sequence[Any], Sequence[Any]], float]


def _accuracy(predictions: Sequence[float], references: Sequence[float]) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(references, predictions))


def _f1(predictions: Sequence[float], references: Sequence[float]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, zero_division=0.0))


def _f1_macro(predictions: Sequence[float], references: Sequence[float]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average="macro", zero_division=0.0))


def _averaged_f1(average: str) -> Metric:
    def f1(predictions: Sequence[Any], references: Sequence[Any]) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(references, predictions, average=average, zero_division=0.0))

    return f1


def _matthews(predictions: Sequence[float], references: Sequence[float]) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(references, predictions))


def _pearson(predictions: Sequence[float], references: Sequence[float]) -> float:
    from scipy.stats import pearsonr

    return float(pearsonr(predictions, references)[0])


def _spearman(predictions: Sequence[float], references: Sequence[float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(predictions, references)[0])


def _mean_loss(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    tokens = sum(references)
    return float(math.fsum(loss for loss, _ in predictions) / tokens) if tokens else math.nan


def _perplexity(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    loss = _mean_loss(predictions, references)
    return math.exp(loss) if not loss >= _MOST_LOSS else math.inf


def _token_accuracy(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    tokens = sum(references)
    return float(sum(right for _, right in predictions) / tokens) if tokens else math.nan


CLASSIFICATION: dict[str, Metric] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "f1_macro": _f1_macro,
    "matthews": _matthews,
}
REGRESSION: dict[str, Metric] = {"pearson": _pearson, "spearman": _spearman}
LABEL_SETS: dict[str, Metric] = {
    "f1_micro": _averaged_f1("micro"),
    "f1_macro": _averaged_f1("macro"),
    "f1_samples": _averaged_f1("samples"),
    "subset_accuracy": _accuracy,
}
TAGS: dict[str, Metric] = {
    "f1": entity_f1,
    "precision": entity_precision,
    "recall": entity_recall,
    "accuracy": tag_accuracy,
}
ANSWERS: dict[str, Metric] = {"f1": answer_f1, "exact_match": exact_match}
TOKENS: dict[str, Metric] = {"perplexity": _perplexity, "loss": _mean_loss, "accuracy": _token_accuracy}
# `Labels.kind` -> the metrics of its predictions.
KNOWN: dict[str, dict[str, Metric]] = {
    "classes": CLASSIFICATION,
    "scores": REGRESSION,
    "label sets": LABEL_SETS,
    "tags": TAGS,
    "choices": {"accuracy": _accuracy},
    "answers": ANSWERS,
    "tokens": TOKENS,
}
# `Labels.kind` -> the types of a prediction and of a reference, in the words of `datasets`; else two integers.
_TYPES: dict[str, tuple[Any, Any]] = {
    "scores": ("float64", "float64"),
    "label sets": (["int64"], ["int64"]),
    "tags": (["string"], ["string"]),
    "answers": ("string", ["string"]),
    "tokens": (["float64"], "int64"),
}
# A larger loss has an infinite perplexity.
_MOST_LOSS = 700.0
# Of class 1 against class 0.
BINARY = ("f1",)
# Zero by definition if all references are of one class.
NEEDS_TWO_CLASSES = ("f1", "matthews")


def metric_name(metric: str | Metric) -> str:
    """The name under which a metric is reported: that of the function."""
    return metric if isinstance(metric, str) else str(getattr(metric, "__name__", type(metric).__name__))


def metric(metrics: Sequence[str | Metric], labels: Labels | None = None) -> Any:
    """An `evaluate.Metric` that computes several metrics together.

    `f1` of classes is that of class 1, as in GLUE. A correlation of constant predictions is NaN, as in GLUE.

    Args:
        metrics: names of built-in metrics, or functions.
        labels: what is predicted; None: scores if one of the names is a metric of scores, else classes.
    """
    # Imported here: it takes seconds, which `--help` and validation should not.
    import datasets
    import evaluate

    # Now rather than at the first evaluation: its dependencies draw from Python's random generator at import, and a
    # resumed run would find the generator in another state than an uninterrupted one.
    import sklearn.metrics  # noqa: F401

    if labels is None:
        labels = SCORE if any(item in REGRESSION for item in metrics) else CLASSES
    known = KNOWN[labels.kind]
    functions: Mapping[str, Metric] = {
        metric_name(item): known[item] if isinstance(item, str) else item for item in metrics
    }
    types = _TYPES.get(labels.kind, ("int64", "int64"))
    ours, theirs = ([datasets.Value(each[0])] if isinstance(each, list) else datasets.Value(each) for each in types)

    class TextMetric(evaluate.Metric):  # type: ignore[misc]
        def _info(self) -> Any:
            features = datasets.Features({"predictions": ours, "references": theirs})
            return evaluate.MetricInfo(
                description="the metrics of a task", citation="", inputs_description="", features=features
            )

        def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
            return {name: float(function(predictions, references)) for name, function in functions.items()}

    return TextMetric(keep_in_memory=True)
