"""Equal runs leave equal folders: whoever watches, wherever, in whatever company, and however the teacher is asked."""

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

# What is left out of a folder's hash, and nothing else. Files: dates, a lock, the words as typed, the tracker's own.
FILES = {"train.log", ".lock", ".hydra", "wandb"}
# Of report.json: times, the words as typed, and how the teacher was asked.
REPORT = {"seconds", "overrides", "teacher"}
# Of config.yaml: where things are kept, who watches, and what spares work.
CONFIG = {"run.root", "cache.dir", "cache.max_gb", "tracker", "sweep", "runtime.compiled", "distill.online"}
# Two epochs of six steps, with drop-out, so that random numbers count.
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
    """File -> hash of what a finished run left in it."""
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
    """Hash of a run -> its files' hashes, of all runs below a place, dense ancestors included."""
    return {json.loads(file.read_text())["hash"]: hashes(file.parent) for file in place.rglob("report.json")}


ONLINE, WANDB, PLAIN = "distill.online=true", "tracker=wandb tracker.mode=offline", "runtime.compiled=false"
# The words of a run -> what may be added to them.
WAYS = {
    "": (ONLINE, f"cache.max_gb=0 {PLAIN}", WANDB),
    "distill=logits": (ONLINE,),
    "training.precision=bf16": (f"{ONLINE} {PLAIN}",),
}


@pytest.mark.parametrize("own", WAYS)
def test_how_a_run_is_helped_or_watched_does_not_show_in_it(
    own: str, train: Callable[..., Any], workplace: Path
) -> None:
    first = train(*WORDS, *own.split(), "cache.dir=cache", "hydra.run.dir=first")
    assert first.code == 0, first.err
    expected = hashes(Path("first"))
    # From the second run on all that is kept is there already: the one that is only watched is simply the same again.
    for more in WAYS[own]:
        shutil.rmtree("again", ignore_errors=True)
        again = train(*WORDS, *own.split(), "cache.dir=cache", "hydra.run.dir=again", *more.split())
        assert again.code == 0, again.err
        assert hashes(Path("again")) == expected, more
        asked_anew = "online" in more or "max_gb" in more
        assert teacher(Path("again")) == ("online" if asked_anew else "stored")


def test_the_company_and_the_surroundings_of_a_process_do_not_show_either(
    train: Callable[..., Any], workplace: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, as a job of a sweep, and with a neighbour in another process; dense ancestors too."""
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
    # Another seed is another run, and seen to be.
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
