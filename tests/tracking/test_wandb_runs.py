"""Whole runs tracked by W&B offline, read with W&B's own reader."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from wandb_helpers import Read, folders, lines_of, read

from hydraprune.results.mask_crops import mask_crops
from hydraprune.utils.files import folders_with

OFFLINE = ("tracker=wandb", "tracker.mode=offline")


def reports(place: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Folder and report of every run below `place`, by hash."""
    found = {}
    for folder in folders_with("report.json", place):
        report = json.loads((folder / "report.json").read_text())
        found[report["hash"]] = (folder, report)
    return found


def by_id(place: Path) -> dict[str, Read]:
    """Every W&B run below `place`; ids must be unique."""
    runs = [read(folder) for folder in folders(place)]
    found = {run.run["run_id"]: run for run in runs}
    assert len(found) == len(runs)
    return found


def test_a_run_and_its_dense_ancestor(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    finished = train(*small, *OFFLINE, "tracker.log_model=true", "tracker.tags=[mine]", "tracker.project=p")
    assert finished.code == 0, finished.err
    assert finished.err == ""
    runs, ours = by_id(workplace), reports(workplace / "outputs")
    assert set(runs) == set(ours)
    assert len(runs) == 2
    for id, run in runs.items():
        folder, report = ours[id]
        begun = run.run
        assert (begun["job_type"], begun["project"]) == (report["phase"], "p")
        assert begun["run_group"].endswith(f" {report['cell']}")
        assert begun["display_name"].startswith(f"toy tiny {report['pattern']}")
        assert run.exit_code == 0
        expected = {"toy", "tiny", report["pattern"], report["scheduler"], report["criterion"], "mine"} - {None}
        assert set(run.tags) == expected
        assert run.config["optimizer"]["lr"] > 0
        assert run.config["training"]["batch_size"] == 32
        assert run.config["task"]["train_examples"] == 320
        assert run.history == lines_of(folder)
        assert finished.out.count(f"`wandb sync {run.folder.relative_to(workplace)}` uploads it") == 1

        for name in ("final", "best", "dense"):
            for metric, value in (report[name] or {}).items():
                if metric != "run":
                    assert run.summary[f"{name}/{metric}"] == value
        for name in ("prunable", "linear", "model"):
            assert run.summary.get(f"sparsity/{name}") == report["sparsity"][name]
        assert {k: v for k, v in run.summary.items() if k.startswith("seconds/")} == {
            f"seconds/{name}": value for name, value in report["seconds"].items()
        }
        assert run.summary["headline"] == report["final"]["accuracy"] == run.summary["eval/accuracy"]
        assert run.summary["steps"] == report["steps"]
        losses = [line["train/loss"] for line in lines_of(folder) if "train/loss" in line]
        assert run.summary["train/loss"] == {"last": losses[-1], "min": min(losses)}
        axes = {
            metric.get("name") or metric["glob_name"]: metric.get("step_metric") for metric in run.of_type("metric")
        }
        assert axes == {"step": None, "*": "step", "train/loss": "step"}

        layers = run.table("layers")
        assert layers["columns"] == ["layer", "part", "pattern", "sparsity"]
        assert {row[0]: row[3] for row in layers["data"]} == report["sparsity"]["per_layer"]
        (model,) = (artifact for artifact in run.of_type("artifact") if artifact["type"] == "model")
        assert model["name"].endswith(f"-{id}")
        places = {Path(entry["local_path"]) for entry in model["manifest"]["contents"]}
        assert places == set((folder.absolute() / "model").iterdir())
        assert json.loads(model["metadata"])["final/accuracy"] == report["final"]["accuracy"]

    sparse = next(run for run in runs.values() if run.run["job_type"] == "sparse")
    dense = next(run for run in runs.values() if run.run["job_type"] == "dense")
    folder, report = ours[sparse.run["run_id"]]
    metric, before, after, difference, best = sparse.table("result")["data"][0]
    assert (metric, before, after) == ("accuracy", report["dense"]["accuracy"], report["final"]["accuracy"])
    assert difference == after - before == sparse.summary["difference/accuracy"]
    assert best == report["best"]["accuracy"]
    assert sparse.summary["sparsity/global"] == lines_of(folder)[-2]["sparsity/global"]
    assert sparse.summary["pattern_ok"] is True
    pruned = [row for row in sparse.table("layers")["data"] if row[1] is not None]
    assert len(pruned) == 12
    assert {tuple(row[1:3]) for row in pruned} == {("4x1", "4x1")}
    assert dense.table("result")["data"] == [
        ["accuracy", report["dense"]["accuracy"], None, None, report["dense"]["accuracy"]]
    ]
    assert not any(key.startswith("masks/") for key in dense.summary)

    (crop,) = mask_crops(folder / "model", report["parts"])
    shown = sparse.summary["masks/4x1"]
    assert shown["caption"] == crop.weight
    image = np.asarray(Image.open(sparse.folder / "files" / shown["path"]).convert("L"))
    assert ((image[4::8, 4::8] < 128) == crop.kept).all()


def test_jobs_of_one_process_do_not_mix(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    finished = train("-m", *small, *OFFLINE, "seed=0,1")
    assert finished.code == 0, finished.err
    runs, ours = by_id(workplace), reports(workplace)
    assert set(runs) == set(ours)
    for phase in ("dense", "sparse"):
        one, other = (run for run in runs.values() if run.run["job_type"] == phase)
        assert one.run["run_group"] == other.run["run_group"]
        assert one.history != other.history
    assert len({run.run["run_group"] for run in runs.values()}) == 2
    for id, run in runs.items():
        folder, report = ours[id]
        assert run.history == lines_of(folder)
        assert run.config["seed"] == report["seed"]


KILLED = """
import os, signal, sys, time
from hydraprune.cli import main
from hydraprune.training import checkpoints, loop

checkpoints.SHARE = 1.0  # every checkpoint, however long the one before took
real_step = loop.take_step

def take_step(run, batches, now, clock):
    if (now, run.steps) == (23, 30):
        time.sleep(3)  # W&B writes only once a second
        os.kill(os.getpid(), signal.SIGKILL)
    return real_step(run, batches, now, clock)

loop.take_step = take_step
sys.argv[0] = "hydraprune"
main()
"""


def test_a_killed_run_resumes_with_its_id(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    words = (*small, *OFFLINE, "training.checkpoint_every=4", "training.log_every=5")
    killed = subprocess.run([sys.executable, "-c", KILLED, "train", *words], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    finished = train(*words)
    assert finished.code == 0, finished.err
    assert "Resuming from step 20 of 30" in finished.out
    (sparse,) = (folder for folder, report in reports(workplace).values() if report["phase"] == "sparse")
    id = json.loads((sparse / "report.json").read_text())["hash"]
    first, second = (read(folder) for folder in folders(workplace) if folder.name.endswith(id))
    assert first.run["run_id"] == second.run["run_id"] == id
    assert first.run["run_group"] == second.run["run_group"]
    whole = lines_of(sparse)
    assert first.history == [line for line in whole if line["step"] <= 20]
    assert first.exit_code is None
    assert second.history == [line for line in whole if line["step"] > 20]
    assert [line["step"] for line in second.history if "train/loss" in line] == [25, 30]


def test_the_tracker_is_not_part_of_a_run(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    assert train(*small).code == 0
    again = train(*small, *OFFLINE)
    assert again.code == 0, again.err
    assert "Finished already" in again.out
    assert not (workplace / "wandb").exists()


def test_the_error_of_a_failed_run(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    assert train(*small, *OFFLINE, "optimizer.lr=1e30", "distill=none").code != 0
    (failed,) = (run for run in by_id(workplace).values() if run.run["job_type"] == "sparse")
    assert failed.exit_code == 1
    assert "not finite" in failed.summary["error"]
    assert "\n" not in failed.summary["error"]


@pytest.mark.parametrize("method", ["start", "log", "end", "close"])
def test_a_failing_tracker_does_not_end_the_run(
    method: str,
    train: Callable[..., Any],
    small: tuple[str, ...],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (workplace / f"broken_{method}.py").write_text(
        "from hydraprune.tracking import BaseTracker\n"
        "class Broken(BaseTracker):\n"
        f"    def {method}(self, *_):\n"
        "        raise RuntimeError('no more\\nof this')\n"
    )
    monkeypatch.syspath_prepend(str(workplace))
    monkeypatch.setenv("HYDRAPRUNE_TARGETS", f"broken_{method}.")
    finished = train(*small[:4], "training.epochs=1", "pattern=dense", f"tracker._target_=broken_{method}.Broken")
    assert finished.code == 0, finished.err
    (report,) = (report for _, report in reports(workplace).values())
    assert report["status"] == "finished"
    line = "The run continues without its tracker Broken: RuntimeError: no more of this"
    assert (finished.out + finished.err).count(line) == 1


REFUSED = {
    "a mode": ("tracker.mode=cloud", ("tracker.mode=cloud", "auto, online, offline or disabled")),
    "a project": ("tracker.project='a/b'", ("tracker.project=a/b", "none of /")),
    "a long project": (f"tracker.project={'x' * 129}", ("tracker.project=x", "128 characters")),
    "a long tag": (f"tracker.tags=[a,{'x' * 65}]", ("tracker.tags=x", "64 characters")),
    "an empty tag": ("tracker.tags=['']", ("tracker.tags=", "not empty")),
    "no time to finish": ("tracker.finish_timeout=0", ("tracker.finish_timeout=0", "above 0")),
    "a mistyped key": ("+tracker.projct=a", ("tracker.projct=a", "tracker.project")),
    "a number": ("tracker.entity=5", ("tracker.entity=5", "text or null")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_wandb_would_refuse_are_refused_before_the_run(
    case: str, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    word, message = REFUSED[case]
    finished = train(*small, "tracker=wandb", word)
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    for part in message:
        assert part in line
    assert list(workplace.iterdir()) == []
