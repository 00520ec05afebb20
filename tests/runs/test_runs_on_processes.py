"""Runs on several processes, started by torchrun: the same masks in all and as in one, stops, resumes, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.xdist_group("processes")
RAMP = ("scheduler.warmup=4", "scheduler.cooldown=4", "scheduler.frequency=4")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")
WORDS = (
    *("task=toy", "model=tiny", "task.train_examples=300", "task.evaluation_examples=70", "training.epochs=2"),
    *(
        "training.batch_size=16",
        "training.device=cpu",
        "runtime.threads=1",
        "runtime.sparse_steps=false",
        "training.log_every=1",
    ),
)


def started(folder: Path, processes: int, *words: str, **variables: str) -> subprocess.Popen[str]:
    torchrun = (*TORCHRUN, f"--nproc-per-node={processes}") if processes > 1 else ()
    command = [sys.executable, *torchrun, "-m", "hydraprune.cli", "train", *WORDS, *words]
    kept = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_training(folder: Path, words: Sequence[str], lines: int) -> tuple[subprocess.Popen[str], psutil.Process]:
    """torchrun with two processes that have logged so many lines, and the second of them."""
    process = started(folder, 2, *words)
    until = time.monotonic() + 100
    while not (folder / "run" / "metrics.jsonl").is_file() or len(rows(folder / "run")) < lines:
        assert time.monotonic() < until
        time.sleep(0.1)
    return process, sorted(psutil.Process(process.pid).children(), key=lambda child: child.pid)[1]


def run(folder: Path, processes: int, *words: str, **variables: str) -> tuple[int, str, str]:
    process = started(folder, processes, *words, **variables)
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dense model, trained by two processes."""
    folder = tmp_path_factory.mktemp("dense")
    code, _, err = run(folder, 2, "pattern=dense", "hydra.run.dir=dense")
    assert code == 0, err
    return str(folder / "dense" / "model")


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


CASES: Sequence[tuple[str, ...]] = (
    (*RAMP, "pattern=4x1", "distill=logits", "training.batch_size=9"),
    (*RAMP, "pattern=2:4", "pruner=fisher", "distill=none", "training.accumulation=2", "training.max_grad_norm=1"),
    ("pattern=2:4", "pruner=sparse_gpt", "scheduler=oneshot", "scheduler.cooldown=8", "distill=none"),
    (*RAMP, "task=toy_tags", "pattern=4x1", "pruner=rigl", "distill=none"),
)


@pytest.mark.parametrize("words", CASES, ids=["logits", "fisher", "sparse_gpt", "tags"])
def test_two_processes_prune_as_one(words: tuple[str, ...], dense: str, tmp_path: Path) -> None:
    """Each update compares masks and weights of all processes bit for bit; here they are compared with one process."""
    source = [f"dense.source={dense}"] if "task=toy_tags" not in words else ["dense.overrides=['training.epochs=1']"]
    sgd = ("optimizer=sgd", "optimizer.lr=0.05")  # Adam makes full steps of rounding noise
    for count in (1, 2):
        code, out, err = run(
            tmp_path, count, *source, *sgd, *words, f"hydra.run.dir=run{count}", f"run.root=out{count}"
        )
        assert code == 0, out + err
    one, two = tmp_path / "run1", tmp_path / "run2"
    ours, theirs = weights(one), weights(two)
    assert all(torch.equal(ours[name] == 0, theirs[name] == 0) for name in ours)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-5)
    lines = rows(one), rows(two)
    assert [row.keys() for row in lines[0]] == [row.keys() for row in lines[1]]
    for mine, other in zip(*lines, strict=True):
        assert mine["step"] == other["step"]
        assert mine.get("sparsity/global") == other.get("sparsity/global")
        assert mine.get("train/loss") == pytest.approx(other.get("train/loss"), abs=2e-5)
    assert json.loads((two / "report.json").read_text())["processes"] == 2
    assert out.count("pattern") == 1  # one process speaks


def test_a_signal_to_any_process_stops_all_and_any_number_goes_on(dense: str, tmp_path: Path) -> None:
    words = (*RAMP, f"dense.source={dense}", "pattern=4x1", "training.epochs=25", "hydra.run.dir=run")
    process, second = in_training(tmp_path, words, 10)
    second.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert err.count("(exitcode: 75)") >= 1
    assert "Traceback" not in err.replace('Traceback (most recent call last):\n  File "<frozen runpy>', "")
    checkpoint = max((tmp_path / "run" / "checkpoints").iterdir())
    step = int(checkpoint.stem.removeprefix("step-"))
    assert [row["step"] for row in rows(tmp_path / "run") if "train/loss" in row] == list(range(1, step + 1))
    ends = []
    for count in (1, 3):
        folder = tmp_path / f"on{count}"
        subprocess.run(["cp", "-r", tmp_path / "run", folder], check=True)
        code, out, err = run(tmp_path, count, *words[:-1], f"hydra.run.dir={folder}")
        assert code == 0, err
        assert f"Resuming from step {step}" in out
        report = json.loads((folder / "report.json").read_text())
        assert report["status"] == "finished"
        assert report["processes"] == count
        assert [row["step"] for row in rows(folder) if "train/loss" in row] == list(range(1, report["steps"] + 1))
        ends.append(report["units"])
    assert ends[0] == ends[1]


def test_a_killed_process_ends_all_and_the_run_can_be_resumed(dense: str, tmp_path: Path) -> None:
    words = (*RAMP, f"dense.source={dense}", "pattern=4x1", "training.epochs=25", "hydra.run.dir=run")
    process, second = in_training(tmp_path, words, 25)
    second.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    # torchrun may end the first process before it has found out by itself.
    said = ("another process of this run has ended", "stopping with a checkpoint", "stopped by SIGTERM")
    assert any(text in err for text in said), err
    assert "gloo" not in err
    assert json.loads((tmp_path / "run" / "report.json").read_text())["status"] == "started"


def test_a_finished_run_is_found_and_a_mistake_is_told_once(dense: str, tmp_path: Path) -> None:
    words = (*RAMP, f"dense.source={dense}", "pattern=4x1", "hydra.run.dir=run")
    assert run(tmp_path, 2, *words)[0] == 0
    code, out, _ = run(tmp_path, 2, *words)
    assert code == 0
    assert out.count("Finished already") == 1
    code, out, err = run(tmp_path, 2, *words, "optimizer.lr=abc")
    assert code != 0
    assert (out + err).count("hydraprune: error:") == 1
    code, out, err = run(tmp_path, 2, *words, "training.cuda_graphs=true", "training.device=cpu")
    assert (out + err).count("hydraprune: error:") == 1
    code, out, err = run(tmp_path, 2, "-m", *words, "seed=0,1")
    assert "a sweep is one process, and torchrun started 2" in err


def test_nan_ends_all_processes_with_one_line(dense: str, tmp_path: Path) -> None:
    words = (*RAMP, f"dense.source={dense}", "pattern=4x1", "hydra.run.dir=run", "optimizer.lr=1e30", "distill=none")
    code, out, err = run(tmp_path, 2, *words)
    assert code != 0
    assert (out + err).count("hydraprune: error: ") == 1
    assert "not finite" in out + err
    assert json.loads((tmp_path / "run" / "report.json").read_text())["status"] == "failed"


def test_processes_of_mpirun_find_each_other(dense: str, tmp_path: Path) -> None:
    """Open MPI's variables, as `mpirun -n 2` sets them."""
    words = (*RAMP, f"dense.source={dense}", "pattern=4x1", "hydra.run.dir=run")
    shared = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": str(os.getpid())}
    both = [
        started(tmp_path, 1, *words, OMPI_COMM_WORLD_RANK=rank, OMPI_COMM_WORLD_LOCAL_RANK=rank, **shared)
        for rank in ("0", "1")
    ]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert "pattern" in outputs[0][0]
    assert outputs[1] == ("", "")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["processes"] == 2
