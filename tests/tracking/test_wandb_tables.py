"""Reports as numbers and rows, masks as pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from hydraprune.tracking.wandb_tables import layer_rows, picture_of, result_rows, summary_of

REPORT: dict[str, Any] = {
    "phase": "sparse",
    "metric": "f1",
    "final": {"f1": 0.5, "accuracy": None},
    "best": {"f1": 0.75, "accuracy": 0.5, "epoch": 2},
    "dense": {"f1": 1.0, "accuracy": 0.5, "run": "outputs/dense"},
    "sparsity": {"prunable": 0.5, "linear": 0.25, "model": float("nan"), "per_layer": {"a.b": 0.5, "head": 0.0}},
    "parts": {"ffn": {"pattern": "2:4", "weights": ["a.b.weight"]}},
    "seconds": {"total": 2.0},
    "pattern_ok": False,
    "steps": 7,
}


def test_figures_that_there_are() -> None:
    assert summary_of(REPORT) == {
        "final/f1": 0.5,
        "best/f1": 0.75,
        "best/accuracy": 0.5,
        "best/epoch": 2,
        "dense/f1": 1.0,
        "dense/accuracy": 0.5,
        "difference/f1": -0.5,
        "sparsity/prunable": 0.5,
        "sparsity/linear": 0.25,
        "seconds/total": 2.0,
        "pattern_ok": False,
        "steps": 7,
        "headline": 0.5,
    }


def test_one_row_a_metric() -> None:
    assert result_rows(REPORT) == [["f1", 1.0, 0.5, -0.5, 0.75]]
    assert result_rows({**REPORT, "dense": None}) == [["f1", None, 0.5, None, 0.75]]
    assert result_rows({**REPORT, "phase": "dense", "dense": None}) == [["f1", 0.5, None, None, 0.75]]


def test_one_row_a_layer() -> None:
    assert layer_rows(REPORT) == [["a.b", "ffn", "2:4", 0.5], ["head", None, None, 0.0]]
    assert layer_rows({**REPORT, "sparsity": None}) == []


def test_each_weight_is_a_square_dark_where_it_is_kept() -> None:
    mask = np.array([[True, False, False], [False, True, False]])
    picture = picture_of(mask)
    assert picture.shape == (17, 25)
    for row in range(2):
        for column in range(3):
            square = picture[row * 8 + 1 : row * 8 + 8, column * 8 + 1 : column * 8 + 8]
            assert len(np.unique(square)) == 1
            assert (square[0, 0] < 128) == mask[row, column]
    assert len(np.unique(picture[::8])) == len(np.unique(picture[:, ::8])) == 1
