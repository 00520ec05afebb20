"""Equal runs leave equal folders, whatever the tracker, cache, launcher, environment and teacher mode."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

# All that a folder's hash leaves out. Files: log with dates, lock, overrides as typed, files of the tracker.
FILES = {"train.log", ".lock", ".hydra", "wandb"}
# Of report.json: times and what follows from them, overrides as typed, and the mode of the teacher.
REPORT = {"seconds", "sparse_gain", "overrides", "teacher"}
# Of config.yaml: folders, tracker, and settings that only save time.
CONFIG = {"run.root", "cache.dir", "cache.max_gb", "tracker", "sweep", "runtime.compiled", "distill.online"}
# Two epochs of six steps, with dropout, so that random numbers count.
WORDS = (
    "model=tiny",
    "model.dropout=0.1",
    "task=toy",
    "task.train_examples=96",
    "task.evaluation_examples=48",
    "pattern=4x1",
    "training.epochs=2",
    "training.batch_size=16",
    "scheduler.warmup=2",
    "scheduler.cooldown=2",
    "scheduler.frequency=3",
    "runtime.threads=1",
    "dense.overrides=['training.epochs=1']",
)


def without(values: dict[str, Any], keys: set[str], above: str = "") -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if f"{above}{key}" not in keys}
    return {k: without(v, keys, f"{above}{k}.") if isinstance(v, dict) else v for k, v in kept.items()}


def content(file: Path) -> bytes:
    if file.name == "report.json":
        return json.dumps(without(json.loads(file.read_text()), REPORT)).encode()
    if file.name == "config.yaml":
        stamp, text = file.read_text().split("\n", 1)
        return stamp.encode() + json.dumps(without(yaml.safe_load(text), CONFIG)).encode()
    return file.read_bytes()


def hashes(folder: Path) -> dict[str, str]:
    """File -> hash of its content, of a finished run."""
    assert json.loads((folder / "report.json").read_text())["status"] == "finished"
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    names = {file: file.relative_to(folder) for file in files}
    found = {
        str(name): hashlib.sha256(content(file)).hexdigest()
        for file, name in names.items()
        if not FILES & set(name.parts)
    }
    assert {"config.yaml", "metrics.jsonl", "report.json", "model/model.safetensors"} <= set(found)
    return found


def teacher(folder: Path) -> str:
    return str(json.loads((folder / "report.json").read_text())["teacher"])


def below(place: Path) -> dict[str, dict[str, str]]:
    """Hash of a run -> hashes of its files, for all runs below a folder, dense ones included."""
    return {json.loads(file.read_text())["hash"]: hashes(file.parent) for file in place.rglob("report.json")}


ONLINE, WANDB, PLAIN = "distill.online=true", "tracker=wandb tracker.mode=offline", "runtime.compiled=false"
# Without compiled code there are no sparse steps, whose results are the same up to rounding.
DENSE = "runtime.sparse_steps=false"
# Overrides of a run -> overrides that do not change its result.
WAYS = {
    "": (ONLINE, "cache.max_gb=0", WANDB),
    "distill=logits": (ONLINE,),
    DENSE: (PLAIN,),
    f"training.precision=bf16 {DENSE}": (f"{ONLINE} {PLAIN}",),
}


@pytest.mark.parametrize("own", WAYS)
def test_cache_tracker_and_compiled_code_do_not_change_the_result(
    own: str, train: Callable[..., Any], workplace: Path
) -> None:
    first = train(*WORDS, *own.split(), "cache.dir=cache", "hydra.run.dir=first")
    assert first.code == 0, first.err
    expected = hashes(Path("first"))
    # From the second run on, the cache is filled.
    for more in WAYS[own]:
        shutil.rmtree("again", ignore_errors=True)
        again = train(*WORDS, *own.split(), "cache.dir=cache", "hydra.run.dir=again", *more.split())
        assert again.code == 0, again.err
        assert hashes(Path("again")) == expected, more
        online = "online" in more or "max_gb" in more
        assert teacher(Path("again")) == ("online" if online else "stored")


def test_sweeps_workers_and_environment_do_not_change_the_result(
    train: Callable[..., Any], workplace: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single run, a job of a sweep, and a worker beside another; their dense runs too."""
    alone = train(*WORDS)
    assert alone.code == 0, alone.err
    expected = below(workplace)
    assert len(expected) == 2
    swept = workplace.with_name("swept")
    swept.mkdir()
    monkeypatch.chdir(swept)
    sweep = train("-m", *WORDS, "seed=1,0")
    assert sweep.code == 0, sweep.err
    found = below(swept)
    assert {run: found[run] for run in expected} == expected
    # Another seed gives another model.
    assert len({files["model/model.safetensors"] for files in found.values()}) == len(found) == 4
    elsewhere = workplace.with_name("else where") / "ü"
    elsewhere.mkdir(parents=True)
    surroundings = {
        **os.environ,
        "PYTHONHASHSEED": "4711",
        "TOKENIZERS_PARALLELISM": "true",
        "RAYON_NUM_THREADS": "2",
        "LC_ALL": "C",
        "TZ": "Asia/Kathmandu",
        "HYDRAPRUNE_CACHE": str(elsewhere / "cache"),
    }
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "sweep=two")
    command = [sys.executable, str(root / "train.py"), "-m", *WORDS, "seed=0,1", *joblib]
    done = subprocess.run(command, cwd=elsewhere, env=surroundings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert below(elsewhere) == found
