"""The race of whole trainings: every side from the start of its process to its saved model, in turns."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from earlier_build import Build
from material import RECIPES
from race import HERE, PUBLISHED, Case, Side, environment_of

# Examples of a training that compiles C code before any is timed.
_FEW = 32
# Mask updates of a training that was cut short, about as many as the published recipe of MRPC has.
_UPDATES = 40
BLOCK = 4


def race_recipes(case: Case, sides: Sequence[Side], builds: dict[str, Build], rounds: int) -> dict[str, Any]:
    """Train every side once in each of some rounds, in turns; the seed is the number of the round.

    Where there are so few examples that the published interval leaves fewer updates than `_UPDATES`, it shrinks.
    """
    frequency = min(RECIPES[case.task].frequency, max(1, case.ramp // _UPDATES))
    folders = {side: case.material / f"{side.build}-{side.precision}" for side in sides}
    found: dict[str, Any] = {"model": case.model, "task": case.task, "threads": case.threads, "rounds": []}
    found |= {"frequency": frequency, "same": []}
    for side, folder in folders.items():
        folder.mkdir()
        if side != PUBLISHED:
            _train(case, side, builds[side.build], folder, 1, 0, [f"task.max_train_examples={_FEW}"])
    for number in range(rounds):
        first = number % len(sides)
        turns = {}
        for side in (*sides[first:], *sides[:first]):
            _forget(folders[side])
            build = builds.get(side.build, builds["now"])
            turns[side] = _train(case, side, build, folders[side], frequency, number, [])
        found["rounds"].append({str(side): turns[side] for side in sides})
        for precision in ("fp32", "bf16"):
            both = [Side("before", precision), Side("now", precision)]
            if set(both) <= set(sides):
                alike = compare(*(_model(folders[side]) for side in both))
                found["same"].append({"seed": number, "precision": precision, **alike})
    for folder in folders.values():
        shutil.rmtree(folder)
    return found


def _forget(folder: Path) -> None:
    """Remove what earlier trainings left, except compiled code."""
    shutil.rmtree(folder / "outputs", ignore_errors=True)
    shutil.rmtree(folder / "model", ignore_errors=True)
    for cached in (folder / "cache").glob("*"):
        if cached.name == "native":
            continue
        if cached.is_dir():
            shutil.rmtree(cached)
        else:
            cached.unlink()


def _train(
    case: Case, side: Side, build: Build, folder: Path, frequency: int, seed: int, more: Sequence[str]
) -> dict[str, Any]:
    """Train to the end: seconds, processor seconds, peak memory in bytes, the report's seconds by kind, metrics."""
    if side == PUBLISHED:
        recipe = {
            "model": str(case.material / case.model),
            "data": str(case.material / case.task),
            "task": case.task,
            "folder": str(folder),
            "frequency": frequency,
            "threads": case.threads,
            "device": case.device,
            "seed": seed,
        }
        command = [build.python, str(HERE / "published_loop.py"), json.dumps(recipe)]
    else:
        train = build.package.parents[1] / "train.py"
        start = [str(train)] if train.is_file() else ["-m", "hydraprune.cli", "train"]
        command = [build.python, *start, *case.words(side, folder, frequency), f"seed={seed}", *more]
    environment = environment_of(build, side)
    used, start = folder / "used.json", time.perf_counter()
    watched = [sys.executable, str(HERE / "peak_memory.py"), str(used), *command]
    done = subprocess.run(watched, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{side}: {' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    if side == PUBLISHED:
        report = json.loads(done.stdout.splitlines()[-1])
    else:
        (place,) = (folder / "outputs").rglob("report.json")
        report = json.loads(place.read_text(encoding="utf-8"))
    if more:
        _forget(folder)
    sparse = report.get("sparse_steps")  # which the earlier build does not report
    if sparse:
        sparse = {**sparse, "gain": report["sparse_gain"]}
    found = {"seconds": seconds, **json.loads(used.read_text(encoding="utf-8"))}
    return {**found, "parts": report["seconds"], "final": report["final"], "sparse": sparse}


def _model(folder: Path) -> Path:
    """The weights that a training left."""
    (found,) = (folder / "outputs").rglob("model.safetensors")
    return found


def compare(first: Path, second: Path) -> dict[str, float]:
    """How two pruned models compare.

    Returns:
        `masks`: share of 4x1 blocks that both keep or both prune; `kept`: share of the blocks that the first keeps
        which the second keeps too; `difference`: largest between two weights; `largest`: absolute weight of the first.
    """
    from safetensors.torch import load_file

    a, b = load_file(first), load_file(second)
    same = blocks = kept = both = 0
    for name, weight in a.items():
        if ".encoder." not in name or weight.dim() != 2:
            continue
        alive = [w.reshape(-1, BLOCK, w.shape[1]).abs().amax(1) > 0 for w in (weight, b[name])]
        same += int((alive[0] == alive[1]).sum())
        blocks += alive[0].numel()
        kept += int(alive[0].sum())
        both += int((alive[0] & alive[1]).sum())
    return {
        "masks": same / blocks,
        "kept": both / max(1, kept),
        "difference": max(float((weight.float() - b[name].float()).abs().max()) for name, weight in a.items()),
        "largest": max(float(weight.float().abs().max()) for weight in a.values()),
    }
