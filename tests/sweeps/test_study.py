"""Studies: trials on engines, totals, early stops, signals, objectives, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hydraprune.results.report import read_report
from hydraprune.results.study_record import StudyRecord, load_study
from hydraprune.search.pruner import EpochPruner

FOLDER = Path("multirun_sweeps/default")
LR = "optimizer.lr=tag(log,interval(1e-4,1e-2))"
COMMON = ("runtime.threads=1", "engine=here", "at_once=2")


def study() -> StudyRecord:
    found = load_study(FOLDER)
    assert found is not None
    return found


def test_a_study_reaches_its_total_and_no_more(hydraprune: Callable[..., Any], small: tuple[str, ...]) -> None:
    words = ("study", *small, LR, "pattern=4x1,2of4", *COMMON)
    first = hydraprune(*words, "study.trials=3")
    assert first.code == 0, first.err
    assert "search optimizer.lr: 0.0001 to 0.01, log scale" in first.out
    assert "task.validation_share=0.2" in first.out
    found = study()
    assert [trial.state for trial in found.trials] == ["complete"] * 3
    for trial in found.trials:
        report = read_report(FOLDER / str(trial.folder))
        assert report is not None
        assert trial.values == [report.final["accuracy"]]
        assert set(trial.words) <= {*report.spec.overrides, "sweep=default"}
    (best,) = found.best
    assert f"best   trial {best.number}: accuracy {best.values[0]:.4g}" in first.out  # type: ignore[index]
    # Each has the folder and hash that the same words have without a study.
    assert len(json.loads((FOLDER / "matrix.json").read_text())["cells"]) == 3
    files = {path: path.stat().st_mtime_ns for path in FOLDER.rglob("report.json")}
    again = hydraprune(*words, "study.trials=3")
    assert again.code == 0, again.err
    more = hydraprune(*words, "study.trials=4")
    assert more.code == 0, more.err
    assert [trial.state for trial in study().trials] == ["complete"] * 4
    assert study().trials[:3] == found.trials
    assert {path: path.stat().st_mtime_ns for path in files} == files
    other = hydraprune(*words, "seed=1")
    assert other.code == 2
    assert "other words" in other.err
    assert "sweep=NAME" in other.err


def test_a_bad_trial_stops_early_and_can_go_on(
    hydraprune: Callable[..., Any], small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*small, "training.epochs=60", "scheduler.cooldown=58ep", LR, "runtime.threads=1", "at_once=1")
    monkeypatch.setattr(EpochPruner, "prune", lambda _, study, trial: trial.number == 1)
    finished = hydraprune("study", *words, "engine=here", "study.trials=3")
    assert finished.code == 0, finished.err
    found = study()
    states = [trial.state for trial in found.trials]
    assert states == ["complete", "stopped", "complete"]
    assert "): trials were stopped early" in finished.out
    stopped = found.trials[1]
    place = FOLDER / str(stopped.folder)
    report = read_report(place)
    assert report is not None
    assert report.stopped
    assert list(place.glob("checkpoints/*"))
    assert stopped.values is None
    assert stopped.epochs
    # It is no failure, and no row of the table.
    assert "early" in finished.err
    cells = json.loads((FOLDER / "matrix.json").read_text())
    assert len(cells["cells"]) == 2
    assert not cells["failures"]
    assert hydraprune("watch", "--once", str(FOLDER)).code == 0
    page = hydraprune("dashboard", str(FOLDER))
    assert page.code == 0, page.err
    assert "accuracy by trial" in (FOLDER / "dashboard.html").read_text()
    monkeypatch.delenv("HYDRAPRUNE_STOP_FILE", raising=False)
    alone = hydraprune("train", *[word for word in stopped.words if word != "at_once=1"], f"hydra.run.dir={place}")
    assert alone.code == 0, alone.err
    report = read_report(place)
    assert report is not None
    assert report.finished
    assert "Resuming from step" in (place / "train.log").read_text()


def test_sparsity_and_latency_are_objectives(hydraprune: Callable[..., Any], small: tuple[str, ...]) -> None:
    words = ("pattern.target_sparsity=0.3,0.6,0.9", "study.objectives=[sparsity,latency]", "study.trials=2")
    bench = ("study.latency.batch=1", "study.latency.length=8", "study.latency.engine=torch")
    finished = hydraprune("study", *small, *words, *bench, *COMMON)
    assert finished.code == 0, finished.err
    found = study()
    assert [each.label for each in found.objectives] == ["sparsity", "latency (ms)"]
    for trial in found.trials:
        assert trial.values is not None
        share = float(trial.words[-1].partition("=")[2])
        assert trial.values[0] == pytest.approx(share, abs=0.02)
        assert trial.values[1] > 0
    assert found.best
    assert hydraprune("dashboard", str(FOLDER)).code == 0
    assert "Pareto front" in (FOLDER / "dashboard.html").read_text()


def test_trials_that_fail_or_are_refused_are_listed(hydraprune: Callable[..., Any], small: tuple[str, ...]) -> None:
    finished = hydraprune("study", *small, "scheduler.warmup=1,100000", "study.trials=2", *COMMON)
    states = {trial.words[-1]: (trial.state, trial.why) for trial in study().trials}
    assert finished.code == 1
    assert "warmup" in str(states["scheduler.warmup=100000"][1])
    assert states["scheduler.warmup=100000"][0] == "failed"
    assert "hydraprune: failed:" in finished.err


def test_a_stopped_study_goes_on(small: tuple[str, ...], workplace: Path, hydraprune: Callable[..., Any]) -> None:
    words = ("study", *small, "training.epochs=40", "scheduler.cooldown=30ep", LR, *COMMON, "study.trials=2")
    command = [sys.executable, "-m", "hydraprune.cli", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as started:
        until = time.monotonic() + 100
        while not any(path.stat().st_size for path in FOLDER.glob("toy/*/*/*/metrics.jsonl")):
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(started.pid, signal.SIGTERM)
        _, err = started.communicate()
    assert started.returncode == 75, err
    assert {trial.state for trial in study().trials} == {"running"}
    finished = hydraprune(*words)
    assert finished.code == 0, finished.err
    assert [trial.state for trial in study().trials] == ["complete"] * 2
    logs = [(FOLDER / str(trial.folder) / "train.log").read_text() for trial in study().trials]
    assert any("Resuming from step" in log for log in logs)
    assert len(list(FOLDER.glob("toy/*/*/*/report.json"))) == 2


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=0,1"], "the best seed is the luckiest"),
        ([], "searches nothing"),
        ([LR, "study.trials=0"], "study.trials=0: must be at least 1"),
        ([LR, "study.trial=3"], "did you mean study.trials?"),
        ([LR, "study.objectives=[f1]"], "score, sparsity, latency"),
        ([LR, "study.pruner._target_=os.system"], "a config may name the classes"),
        ([LR, "optimizer.lrr=1"], "optimizer.lrr"),
        ([LR, "engine=ray"], "as in at_once=8"),
        ([LR, "hydra/launcher=joblib", "engine=here"], "leave hydra/launcher out"),
        ([LR, "study.trials=1,2"], "is one for all jobs"),
        ([LR, "study.pruner=abc"], "study.pruner"),
        ([LR, "study.sampler._partial_=false"], "study.sampler"),
        ([LR, "study.latency.engine=foo"], "study.latency.engine=foo: no such engine"),
        ([LR, "hydra/sweeper=basic"], "a study makes its own jobs"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    words: list[str], said: str, hydraprune: Callable[..., Any], small: tuple[str, ...]
) -> None:
    refused = hydraprune("study", *small, *words)
    assert refused.code == 2, refused.err
    assert said in refused.err
    assert refused.err.count("\n") == 1
    assert not FOLDER.exists()


def test_a_plan_runs_nothing(hydraprune: Callable[..., Any], small: tuple[str, ...]) -> None:
    planned = hydraprune("study", *small, LR, "plan=true")
    assert planned.code == 0, planned.err
    assert "20 trials of score" in planned.out
    assert not FOLDER.exists()


def test_a_study_is_nothing_for_a_single_run(train: Callable[..., Any], small: tuple[str, ...]) -> None:
    refused = train(*small, "study=optuna")
    assert refused.code == 2
    assert "add -m for a sweep" in refused.err
