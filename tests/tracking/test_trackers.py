"""Trackers from outside, one or several at a time, named in a config."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wandb_helpers import folders, lines_of, read

from hydraprune.tracking import JsonLines, RunTracker, Several, Silent, WandB

# A tracker as a user writes one.
MODULE = """
import csv

from hydraprune.tracking import About, BaseTracker, Outcome


class Csv(BaseTracker):
    def __init__(self, path: str, fail: bool = False) -> None:
        self.path, self.fail = path, fail

    def start(self, about: About) -> None:
        self.file = open(self.path, "a", newline="")
        self.rows = csv.writer(self.file)
        self.rows.writerow([about.id, about.spec.pattern, about.steps, ""])

    def log(self, values, step: int) -> None:
        if self.fail:
            raise ConnectionError("the server is gone")
        self.rows.writerows([step, name, value, ""] for name, value in values.items())

    def end(self, outcome: Outcome) -> None:
        self.rows.writerow(["end", outcome.report["status"], outcome.model.name, ""])

    def close(self, error: BaseException | None) -> None:
        self.rows.writerow(["close", error, "", ""])
        self.file.close()
"""
CONFIGS = {
    "csv": """
_target_: mine.Csv
path: metrics.csv
""",
    "both": """
_target_: hydraprune.tracking.Several
trackers:
  - _target_: hydraprune.tracking.WandB
    mode: offline
  - _target_: mine.Csv
    path: metrics.csv
""",
    "failing": """
_target_: hydraprune.tracking.Several
trackers:
  - {_target_: mine.Csv, path: failing.csv, fail: true}
  - {_target_: mine.Csv, path: metrics.csv}
""",
}
RUN = ("model=tiny", "task=toy", "task.train_examples=64", "task.evaluation_examples=32", "training.epochs=1")


@pytest.fixture
def run(train: Callable[..., Any], workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Train a dense model with a tracker that is defined in the current folder."""
    (workplace / "mine.py").write_text(MODULE)
    (workplace / "conf" / "tracker").mkdir(parents=True)
    for name, text in CONFIGS.items():
        (workplace / "conf" / "tracker" / f"{name}.yaml").write_text(text)
    monkeypatch.syspath_prepend(str(workplace))
    monkeypatch.setenv("HYDRAPRUNE_TARGETS", "mine.")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return lambda *words: train("--config-dir=conf", *RUN, "pattern=dense", *words)


def logged(file: Path) -> list[list[str]]:
    return [line.split(",") for line in file.read_text().splitlines()]


def expected(folder: Path) -> list[list[str]]:
    """The rows that the run in `folder` should have given to `Csv`."""
    report = json.loads((folder / "report.json").read_text())
    metrics = [
        [str(line["step"]), name, str(value), ""]
        for line in lines_of(folder)
        for name, value in line.items()
        if name != "step"
    ]
    start = [report["hash"], "dense", str(report["steps"]), ""]
    return [start, *metrics, ["end", "finished", "model", ""], ["close", "", "", ""]]


def test_a_tracker_from_outside(run: Callable[..., Any], workplace: Path) -> None:
    done = run("tracker=csv")
    assert done.code == 0, done.err
    (folder,) = (path.parent for path in workplace.rglob("report.json"))
    assert logged(workplace / "metrics.csv") == expected(folder)


def test_two_trackers_at_once(run: Callable[..., Any], workplace: Path) -> None:
    done = run("tracker=both")
    assert done.code == 0, done.err
    (folder,) = (path.parent for path in workplace.rglob("report.json"))
    assert logged(workplace / "metrics.csv") == expected(folder)
    (offline,) = folders(workplace)
    assert read(offline).history == lines_of(folder)
    # The tracker is not part of a run: without one the run is found finished.
    again = run("tracker=none")
    assert "Finished already" in again.out


def test_a_tracker_that_fails_does_not_affect_the_other(run: Callable[..., Any], workplace: Path) -> None:
    done = run("tracker=failing")
    assert done.code == 0, done.err
    (folder,) = (path.parent for path in workplace.rglob("report.json"))
    assert logged(workplace / "metrics.csv") == expected(folder)
    assert [row[0] for row in logged(workplace / "failing.csv")][-1] == "close"
    assert (done.out + done.err).count("continues without its tracker Csv: ConnectionError: the server is gone") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tracker._target_=other.Csv"], "tracker._target_=other.Csv: "),
        (["tracker=both", "tracker.trackers=[{_target_: other.Csv}]"], "other.Csv: "),
        (["tracker=both", "tracker.trackers=5"], "tracker.trackers=5: must be a list"),
        (["tracker=both", "tracker.trackers=[{_target_: mine.Csv, pathh: x}]"], "pathh"),
        (["tracker=both", "tracker.trackers=[{_target_: hydraprune.tracking.WandB, mode: cloud}]"], "mode=cloud: must"),
    ],
)
def test_a_mistake_in_a_tracker_node_is_one_line(
    words: list[str], message: str, run: Callable[..., Any], workplace: Path
) -> None:
    refused = run(*words)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert message in refused.err
    assert not (workplace / "outputs").exists()


def test_own_trackers_have_the_contract(tmp_path: Path) -> None:
    trackers: list[RunTracker] = [Silent(), WandB("disabled"), JsonLines(tmp_path / "metrics.jsonl")]
    several: RunTracker = Several(trackers)
    several.log({"train/loss": 1.0}, 1)
    several.close(None)
    assert lines_of(tmp_path) == [{"step": 1, "train/loss": 1.0}]


def test_all_trackers_are_closed_even_if_one_raises(tmp_path: Path) -> None:
    class Broken(Silent):
        def close(self, error: BaseException | None) -> None:
            raise RuntimeError("broken")

    last = JsonLines(tmp_path / "metrics.jsonl")
    with pytest.raises(RuntimeError, match="broken"):
        Several([Broken(), last]).close(None)
    with pytest.raises(ValueError, match="closed file"):
        last.log({"a": 1.0}, 1)
