"""What a job returns to a search: the headline metric, and with two directions the sparsity too."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from hydraprune.launch import _objectives
from hydraprune.results.report import RunReport
from hydraprune.results.run_spec import invalid_spec


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        (None, 0.75),
        ("maximize", 0.75),
        (["maximize"], 0.75),
        (["maximize", "maximize"], [0.75, 0.9]),
        (["maximize", "minimize", "minimize"], 0.75),
    ],
)
def test_objectives(direction: Any, expected: Any) -> None:
    report = RunReport(
        invalid_spec(()),
        "finished",
        metric="accuracy",
        final={"accuracy": 0.75},
        sparsity={"prunable": 0.9, "model": 0.5},
    )
    config = OmegaConf.create({"sweeper": {"direction": direction}})
    assert _objectives(report, config) == expected  # type: ignore[arg-type]
