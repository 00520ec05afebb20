"""Reports as summary values and rows, masks as images."""

from __future__ import annotations

from typing import Any

import numpy as np

from hydraprune.tracking.wandb_tables import layer_rows, mask_image, report_summary, result_rows

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


def test_missing_and_non_finite_values_are_left_out() -> None:
    assert report_summary(REPORT) == {
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


def test_one_row_per_metric() -> None:
    assert result_rows(REPORT) == [["f1", 1.0, 0.5, -0.5, 0.75]]
    assert result_rows({**REPORT, "dense": None}) == [["f1", None, 0.5, None, 0.75]]
    assert result_rows({**REPORT, "phase": "dense", "dense": None}) == [["f1", 0.5, None, None, 0.75]]


def test_one_row_per_layer() -> None:
    assert layer_rows(REPORT) == [["a.b", "ffn", "2:4", 0.5], ["head", None, None, 0.0]]
    assert layer_rows({**REPORT, "sparsity": None}) == []


def test_each_kept_weight_is_a_dark_square() -> None:
    mask = np.array([[True, False, False], [False, True, False]])
    image = mask_image(mask)
    assert image.shape == (17, 25)
    for row in range(2):
        for column in range(3):
            square = image[row * 8 + 1 : row * 8 + 8, column * 8 + 1 : column * 8 + 8]
            assert len(np.unique(square)) == 1
            assert (square[0, 0] < 128) == mask[row, column]
    assert len(np.unique(image[::8])) == len(np.unique(image[:, ::8])) == 1
