"""Runs that an earlier version made are found, read and shown by today's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from saved_run_helpers import write_whole_model

from hydraprune.results.report import read_report

# A sparse run and its dense run of version 0.1.0, without their models.
EARLIER = Path(__file__).with_name("earlier_version")
WORDS = (
    *("model=tiny", "task=toy", "task.train_examples=320", "task.evaluation_examples=64", "training.epochs=3"),
    *("training.batch_size=32", "scheduler.warmup=5", "scheduler.cooldown=5", "scheduler.frequency=4"),
    *("dense.overrides=['training.epochs=1']", "runtime.threads=1"),
)


@pytest.fixture
def outputs(workplace: Path) -> Path:
    """The earlier runs where they were made, with a model's folder each."""
    shutil.copytree(EARLIER, workplace / "outputs")
    for report in (workplace / "outputs").rglob("report.json"):
        write_whole_model(report.parent / "model")
    return workplace / "outputs"


def test_an_earlier_run_is_found_finished(outputs: Path, train: Callable[..., Any]) -> None:
    before = {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    for words in (WORDS, ("pattern=dense", *(w for w in WORDS if "scheduler" not in w and "epochs" not in w))):
        done = train(*words, *(["training.epochs=1"] if "pattern=dense" in words else []))
        assert done.code == 0, done.err
        assert "Finished already: outputs/toy/tiny/" in done.out
    assert len(list(outputs.rglob("report.json"))) == 2
    assert all(path.read_bytes() == content for path, content in before.items() if path.name != "train.log")


def test_an_earlier_report_is_read_whole(outputs: Path) -> None:
    for path in outputs.rglob("report.json"):
        report = read_report(path.parent)
        assert report is not None
        later = {
            "inputs": {},
            "weights": None,
            "data": None,
            "checkpoint": None,
            "coverage": None,
            "sparse_steps": None,
            "sparse_gain": None,
            "processes": None,
        }  # fields that it did not have
        assert report.as_dict() == json.loads(path.read_text()) | later


def test_earlier_runs_are_in_the_table_and_in_a_sweep(outputs: Path, hydraprune: Callable[..., Any]) -> None:
    table = hydraprune("report", "outputs")
    assert table.code == 0
    assert "| tiny  | toy  | 4x1 at 90% |" in table.out
    planned = hydraprune("train", "-m", *WORDS, "pattern=4x1", "plan=true", "hydra.sweep.dir=outputs")
    assert planned.code == 0, planned.err
    assert "jobs   1 job: 1 finished" in planned.out
