"""The published results of the recipes that we reproduce."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One published row: means and maxima over an unknown number of runs.

    Where a single figure was published, it is used for both.

    Args:
        target_sparsity: from the published commands, or for channels from the ratio.
        metric: F1 for MRPC: no published value is a share of 408 examples, all can be F1 scores, and the
            list of models of the same source gives the same numbers as f1.
        ratio: zeros / weights of all Linear layers, as published.
        doubt: why the row is unreliable, if it is.
    """

    model: str
    task: str
    pattern: str
    target_sparsity: float
    metric: str
    ratio: float
    dense_mean: float
    dense_max: float
    sparse_mean: float
    sparse_max: float
    doubt: str | None = None

    @property
    def drop(self) -> float:
        """The published relative drop: best sparse run / best dense run - 1."""
        return self.sparse_max / self.dense_max - 1

    @property
    def difference(self) -> float:
        """Mean of the sparse runs - mean of the dense runs."""
        return self.sparse_mean - self.dense_mean


def _bert_mini_mrpc(pattern: str, target: float, ratio: float, mean: float, best: float) -> Published:
    return Published("bert_mini", "mrpc", pattern, target, "f1", ratio, 0.8619, 0.8752, mean, best)


def _bert_mini_sst2(
    pattern: str, target: float, ratio: float, mean: float, best: float, doubt: str | None = None
) -> Published:
    return Published("bert_mini", "sst2", pattern, target, "accuracy", ratio, 0.8660, 0.8761, mean, best, doubt)


def _distilbert_mrpc(pattern: str, target: float, ratio: float, figure: float) -> Published:
    return Published("distilbert", "mrpc", pattern, target, "f1", ratio, 0.9026, 0.9026, figure, figure)


PUBLISHED = (
    _bert_mini_mrpc("4x1", 0.9, 0.8804, 0.8610, 0.8722),
    _bert_mini_mrpc("2:4", 0.5, 0.4795, 0.8666, 0.8689),
    _bert_mini_mrpc("1xchannel", 0.6, 0.66, 0.8629, 0.8680),
    _bert_mini_sst2("4x1", 0.9, 0.8815, 0.8651, 0.8692),
    _bert_mini_sst2("2:4", 0.5, 0.4795, 0.8731, 0.8773),
    _bert_mini_sst2("1xchannel", 0.5, 0.53, 0.8651, 0.8692, "repeats the scores of 4x1 exactly"),
    _distilbert_mrpc("4x1", 0.9, 0.8992, 0.8985),
    _distilbert_mrpc("2:4", 0.5, 0.5000, 0.9088),
)


def published(model: str, task: str, pattern: str, target_sparsity: float | None) -> Published | None:
    """The published row of this model, task, pattern and target; None if there is none."""
    wanted = (model, task, pattern, target_sparsity)
    return next((row for row in PUBLISHED if (row.model, row.task, row.pattern, row.target_sparsity) == wanted), None)
