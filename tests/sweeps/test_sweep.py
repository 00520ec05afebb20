"""Whole sweeps of the tiny model on the toy task: plan, execution and results matrix."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweep_helpers import reports

HOME = Path("multirun_sweeps", "default")


def run_files() -> dict[Path, tuple[int, bytes]]:
    """Times and contents of the files of runs, which must not change once a run is finished."""
    files = [*Path().rglob("report.json"), *Path().rglob("metrics.jsonl")]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def test_a_sweep_from_plan_to_table(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    words = ("-m", *small, "pattern=4x1,2:4", "seed=0")
    planned = train(*words, "plan=true")
    assert planned.code == 0, planned.err
    assert list(workplace.iterdir()) == []
    assert "jobs   2 jobs: 2 new" in planned.out
    assert "dense  1 dense model to train first, each once" in planned.out
    assert "time   unknown (no finished run to go by yet)" in planned.out
    assert re.search(
        r"disk   about \d+ MB of models, \d+ MB in the cache, and up to \d+ MB of checkpoints .+ free\n", planned.out
    )

    first = train(*words)
    assert first.code == 0, first.err
    # The plan listed every folder.
    for directory in reports("multirun_sweeps", "outputs"):
        assert f" {directory}\n" in planned.out
    assert len(reports("multirun_sweeps")) == 2
    assert [report["phase"] for report in reports("outputs").values()] == ["dense"]
    assert first.err.count("done    toy tiny ") == 2
    table = (HOME / "matrix.md").read_text()
    assert table in first.out
    for pattern in ("4x1 at 90%", "2:4 at 50%"):
        assert re.search(rf"\| tiny +\| toy +\| {pattern} .* \| 1 +\|\n", table)
    figures = {cell["pattern"]: cell["scores"][0]["values"]["sparse"] for cell in matrix_cells()}
    by_hand = {r["pattern"]: {"0": r["final"]["accuracy"]} for r in reports("multirun_sweeps").values()}
    assert figures == by_hand

    plan = json.loads((HOME / "plan.json").read_text())
    assert plan["command"] == list(words[1:])
    assert plan["workers"] == 1
    assert [(job["pattern"], job["seed"]) for job in plan["jobs"]] == [("4x1", 0), ("2:4", 0)]
    for job in plan["jobs"]:
        report = json.loads((HOME / job["directory"] / "report.json").read_text())
        assert {key: job[key] for key in ("hash", "cell", "seed", "steps", "target_sparsity", "precision")} == {
            key: report[key] for key in ("hash", "cell", "seed", "steps", "target_sparsity", "precision")
        }
        assert job["words"] == report["overrides"]
        saved = (HOME / job["directory"] / "model" / "model.safetensors").stat().st_size
        assert job["model_bytes"] == pytest.approx(saved, rel=0.05)
    assert {job["ancestor"] for job in plan["jobs"]} == {dense["hash"] for dense in plan["ancestors"]}

    before = run_files()
    again = train(*words)
    assert again.code == 0, again.err
    assert run_files() == before
    assert "jobs   2 jobs: 2 finished" in again.out
    assert "done " not in again.err
    assert (HOME / "matrix.md").read_text() == table

    more = (*words[:-1], "seed=0,1")
    planned = train(*more, "plan=true")
    assert "jobs   4 jobs: 2 finished, 2 new" in planned.out
    assert re.search(r"time   about \d+ s\n", planned.out)
    assert run_files() == before
    added = train(*more)
    assert added.code == 0, added.err
    assert {file: state for file, state in run_files().items() if file in before} == before
    assert len(reports("multirun_sweeps")) == 4
    assert len(reports("outputs")) == 2
    assert added.err.count("done    toy tiny ") == 2
    assert [cell["scores"][0]["sparse"]["n"] for cell in matrix_cells()] == [2, 2]


def matrix_cells() -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads((HOME / "matrix.json").read_text())["cells"]
    return cells


def test_a_job_that_fails(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    words = ("-m", *small, "optimizer.lr=1e30,1e-3", "distill=none")
    finished = train(*words)
    assert finished.code == 1
    status = {report["status"]: directory for directory, report in reports("multirun_sweeps").items()}
    assert set(status) == {"finished", "failed"}
    (line,) = (line for line in finished.err.splitlines() if line.startswith("hydraprune: failed: "))
    assert line.startswith(f"hydraprune: failed: {status['failed']}: ")
    assert "not finite" in line
    table = (HOME / "matrix.md").read_text()
    assert table in finished.out
    assert f"- {status['failed']}: " in table
    assert "4x1 at 90% optimizer.lr=1e+30" in table
    assert "**0 of 1** (failed 0)" in table

    before = run_files()
    assert "1 failed, 1 finished" in train(*words, "plan=true").out
    assert run_files() == before
    again = train(*words)
    assert again.code == 1
    assert "jobs   2 jobs: 1 failed, 1 finished" in again.out
    own = {file: state for file, state in before.items() if status["failed"] not in file.parents}
    assert {file: state for file, state in run_files().items() if file in own} == own
    # The failed job ran again and has a new report.
    assert run_files()[status["failed"] / "report.json"] != before[status["failed"] / "report.json"]
    assert "failed  toy tiny 4x1 seed 0 optimizer.lr=1e+30: " in again.err


def test_a_refused_job_is_listed_before_training(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = ("-m", *small, "pattern=4x1", "pattern.rows=7,4")
    planned = train(*words, "plan=true")
    assert planned.code == 2
    assert "7x1 does not fit" in planned.out
    assert list(workplace.iterdir()) == []
    finished = train(*words)
    assert finished.code == 1
    refused = next(line for line in finished.out.splitlines() if line.startswith("refused: "))
    assert "7x1 does not fit" in refused
    assert finished.out.index("refused: ") < finished.out.index("# Results")
    (line,) = (line for line in finished.err.splitlines() if line.startswith("hydraprune: failed: "))
    assert "7x1 does not fit" in line
    plan = json.loads((HOME / "plan.json").read_text())
    assert [job["refused"] is None for job in plan["jobs"]] == [False, True]
    assert {cell["pattern"]: (cell["finished"], cell["failed"]) for cell in matrix_cells()} == {
        "4x1": ([0], []),
        "7x1": ([], [0]),
    }
    assert "2 jobs: 1 refused, 1 finished" in train(*words, "plan=true").out


def test_a_job_with_an_invalid_value_does_not_stop_the_others(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = ("-m", *small, "training.epochs=1,many")
    planned = train(*words, "plan=true")
    assert planned.code == 2
    assert "training.epochs=many: must be" in planned.out
    finished = train(*words)
    assert finished.code == 1
    assert finished.err.count("hydraprune: failed: ") == 1
    assert "training.epochs=many: must be" in finished.err
    (cell,) = matrix_cells()
    assert cell["finished"] == [0]
    assert (HOME / "matrix.md").read_text().count("training.epochs=many: must be") == 1


def test_a_job_that_cannot_be_composed_does_not_stop_the_others(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    """A dense run has no scheduler, and no pattern is called `bogus`."""
    finished = train("-m", *small, "pattern=4x1,dense,bogus")
    assert finished.code == 1
    assert "3 jobs: 2 refused, 1 new" in finished.out
    assert "no such key beside the other words" in finished.err
    assert "pattern=bogus: there is no such pattern" in finished.err
    assert [report["status"] for report in reports("multirun_sweeps/default/toy").values()] == ["finished"]


def test_folders_that_depend_on_the_job_number_are_refused(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    finished = train("-m", *small, "seed=0,1", "hydra.sweep.subdir=${hydra.job.num}")
    assert finished.code == 1
    assert finished.err.count("depends on the job's number") == 2


def test_jobs_of_an_earlier_command_are_reported_as_missing(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    plan = json.loads(json.dumps({"schema": 1, "command": [], "workers": 1, "jobs": [], "ancestors": []}))
    HOME.mkdir(parents=True)
    job = {"hash": "h", "cell": "c", "phase": "sparse", "model": "tiny", "task": "toy", "pattern": "2:4", "words": []}
    job |= {"target_sparsity": 0.5, "seed": 7, "precision": "fp32", "directory": "toy/h", "steps": 3}
    (HOME / "plan.json").write_text(json.dumps({**plan, "jobs": [job]}))
    finished = train("-m", *small, "pattern=4x1")
    assert finished.code == 0, finished.err
    assert "**0 of 1** (missing 7)" in finished.out


def test_a_dense_job_is_trained_once_and_shared(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    """Dense jobs come first, are trained once, and stay in the folder where every run finds them."""
    own = [word for word in small if not word.startswith(("dense.", "scheduler.", "training.epochs"))]
    words = ("-m", *own, "pattern=4x1,dense")
    finished = train(*words)
    assert finished.code == 0, finished.err
    assert [report["phase"] for report in reports("multirun_sweeps").values()] == ["sparse"]
    ((directory, dense),) = reports("outputs").items()
    assert dense["phase"] == "dense"
    assert (directory / "train.log").read_text().count("Finished already") == 0
    plan = json.loads((HOME / "plan.json").read_text())
    assert [job["phase"] for job in plan["jobs"]] == ["dense", "sparse"]
    assert plan["ancestors"] == []
    assert (HOME / plan["jobs"][0]["directory"]).resolve() == directory.resolve()
    assert {cell["phase"] for cell in matrix_cells()} == {"dense", "sparse"}
    assert "## Dense models" in (HOME / "matrix.md").read_text()

    # Another sweep finds it.
    before = run_files()
    assert train("-m", *own, "pattern=dense", "sweep=other").code == 0
    assert run_files() == before
    assert "## Dense models" in Path("multirun_sweeps", "other", "matrix.md").read_text()


def test_the_temporary_file_of_a_killed_process_is_ignored(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    """A process killed between writing a file and renaming it leaves a temporary file."""
    planned = train(*small, "plan=true").out
    for line in planned.splitlines()[:2]:
        directory = Path(line.split()[-1])
        directory.mkdir(parents=True)
        (directory / ".config.yaml.123.tmp").write_text("# run ")
    finished = train(*small)
    assert finished.code == 0, finished.err


def test_plan_of_a_single_run(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    planned = train(*small, "plan=true")
    assert planned.code == 0, planned.err
    assert list(workplace.iterdir()) == []
    assert "jobs   1 job: 1 new" in planned.out
    refused = train(*small, "pattern.rows=7", "plan=true")
    assert refused.code == 2
    assert list(workplace.iterdir()) == []


def test_a_sweep_over_the_demonstration_matrix(train: Callable[..., Any], workplace: Path) -> None:
    planned = train("-m", "demo_matrix=glob(*)", "plan=true")
    assert planned.code == 0, planned.err
    assert "jobs   4 jobs: 4 new" in planned.out
    assert "dense  1 dense model to train first" in planned.out
    names = [line.split() for line in planned.out.splitlines() if line.startswith("new  ")]
    assert sorted(name[4] for name in names) == ["1xchannel", "2:4", "4x1", "mixed"]
    assert {(name[2], name[3], name[6]) for name in names} == {("toy", "tiny", "0")}
    assert list(workplace.iterdir()) == []


@pytest.mark.usefixtures("bad_input")
def test_a_key_of_what_the_rows_choose_is_explained(train: Callable[..., Any], workplace: Path) -> None:
    finished = train("-m", "demo_matrix=glob(*)", "task.train_examples=600", "plan=true")
    assert finished.code == 2
    assert "each row chooses the task; where all rows have the same, give it too: task=toy" in finished.err
