"""Made-up runs: reports, metrics and small models as runs write them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from saved_run_helpers import write_whole_model
from spec_helpers import changed, report_of

from hydraprune.dashboard.comparisons import Comparison
from hydraprune.dashboard.records import Records
from hydraprune.results.plan_file import Plan, Planned, write_plan
from hydraprune.results.report import RunReport, write_report

NASTY = '</script><b>&"not finite'
SEEDS = (0, 1, 2)
# Rows and columns of a weight, more than a mask crop has.
SHAPE = (48, 80)
QUERY, FFN, HEAD = "bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.output.dense", "classifier"
TARGETS = {"4x1": 0.9, "2:4": 0.5, "1xchannel": 0.6, "mixed": 0.9}
# (task, model) -> patterns; some have a published row, some have none.
STUDIES: dict[tuple[str, str], tuple[str, ...]] = {
    ("mrpc", "bert_mini"): ("4x1", "2:4", "1xchannel", "mixed"),
    ("sst2", "bert_mini"): ("4x1", "2:4"),
    ("sst2", "tiny"): ("4x1",),
}


@dataclass(frozen=True)
class World:
    """Folders of runs.

    Args:
        sweep: with a plan.
        outputs: of the dense runs, beside it.
        failures: (run's folder, why) of those that did not finish.
    """

    sweep: Path
    outputs: Path
    failures: dict[str, str]


def world(place: Path) -> World:
    """Three comparisons of up to four patterns and three seeds; one run failed, one was interrupted, one did not start.

    One score is not finite, one history ends with an incomplete line.
    """
    sweep, outputs = place / "multirun_sweeps" / "demo", place / "outputs"
    jobs = []
    for (task, model), patterns in STUDIES.items():
        for seed in SEEDS:
            dense_run(outputs, task, model, seed)
            for pattern in patterns:
                found = sparse_run(sweep, task, model, pattern, seed)
                jobs.append(planned(found, folder_of(sweep, found)))
    failed = replace(report("mrpc", "bert_mini", "4x1", 0, target=0.95), status="failed", error=NASTY)
    interrupted = replace(report("mrpc", "bert_mini", "2:4", 3), status="started")
    for found in (unfinished(failed), unfinished(interrupted)):
        folder = kept(found, folder_of(sweep, found))
        jobs.append(planned(found, folder))
        write_history(folder, found, steps=30)
    missing = report("mrpc", "bert_mini", "4x1", 4)
    jobs.append(planned(missing, folder_of(sweep, missing)))
    write_plan(Plan(("task=mrpc,sst2", "seed=0,1,2"), 2, tuple(jobs), ()), sweep)
    why = {
        NASTY: failed,
        "it was interrupted: its process ended before the run did": interrupted,
        "it did not start": missing,
    }
    return World(sweep, outputs, {str(folder_of(sweep, found)): text for text, found in why.items()})


def dense_run(outputs: Path, task: str, model: str, seed: int, **changes: Any) -> Path:
    """A finished dense run."""
    found = changed(report(task, model, "dense", seed), **changes)
    folder = kept(found, folder_of(outputs, found))
    write_history(folder, found)
    write_whole_model(folder / "model")
    return folder


def sparse_run(sweep: Path, task: str, model: str, pattern: str, seed: int, **changes: Any) -> RunReport:
    """A finished sparse run with the scores of its dense model and the counts of its saved weights."""
    found = report(task, model, pattern, seed)
    # One score is not finite.
    if (task, pattern, seed) == ("mrpc", "1xchannel", 2):
        found = replace(found, final={**found.final, "f1": float("nan")})
    folder = folder_of(sweep, changed(found, **changes))
    masks = masks_of(pattern, seed)
    sparsity = {name: float(np.count_nonzero(~mask)) / mask.size for name, mask in masks.items()}
    parts = {"4x1": [QUERY], "1x1": [FFN]} if pattern == "mixed" else {pattern: [QUERY, FFN]}
    pruned = [masks[name] for name in (QUERY, FFN)]
    found = replace(
        found,
        sparsity={
            "prunable": sum(np.count_nonzero(~mask) for mask in pruned) / sum(mask.size for mask in pruned),
            "linear": sum(np.count_nonzero(~m) for m in masks.values()) / sum(m.size for m in masks.values()),
            "model": 0.5,
            "per_layer": sparsity,
        },
        parts={
            ("attention" if pattern == "mixed" and name == "4x1" else name): {
                "pattern": name,
                "weights": [f"{layer}.weight" for layer in layers],
                "sparsity": sum(sparsity[layer] for layer in layers) / len(layers),
            }
            for name, layers in parts.items()
        },
    )
    found = changed(found, **changes)
    kept(found, folder)
    write_history(folder, found)
    write_model(folder / "model", masks, seed)
    return found


def report(task: str, model: str, pattern: str, seed: int, target: float | None = None) -> RunReport:
    """A finished run whose scores follow from its name and seed."""
    dense = pattern == "dense"
    goal = None if dense else target or TARGETS.get(pattern, 0.5)
    cell = f"{abs(hash_of(task, model, pattern, goal)):012x}"[-12:]
    train, scores = 2.0 + seed, score_of(task, model, pattern, seed)
    before = {**score_of(task, model, "dense", seed), "run": f"outputs/{folder_name(task, model, 'dense', seed)}"}
    return report_of(
        status="finished", hash=f"{cell[:10]}{seed:02d}", cell=cell,
        overrides=[f"task={task}", f"model={model}", f"pattern={pattern}", f"seed={seed}"],
        phase="dense" if dense else "sparse", model=model, task=task, pattern=pattern, criterion="snip_momentum",
        scheduler="exp", recipe={"name": "r", "source": "published"}, seed=seed, metric=next(iter(scores)),
        final=scores, best=scores, dense=None if dense else before, target_sparsity=goal, pattern_ok=True,
        sparsity={"prunable": 0.0, "linear": 0.0, "model": 0.0, "per_layer": {}}, steps=60, examples=60 * 32,
        seconds={"total": train + 1.5, "train": train, "eval": 0.5, "teacher": 0.25}, threads=1, precision="fp32",
        device="cpu (x86_64)",
    )  # fmt: skip


def hash_of(*words: object) -> int:
    return random.Random(repr(words)).getrandbits(47)


def score_of(task: str, model: str, pattern: str, seed: int) -> dict[str, float | None]:
    chance = random.Random(f"{task}/{model}/{pattern}/{seed}")
    best = 0.87 if pattern == "dense" else 0.85
    accuracy = best + chance.uniform(-0.02, 0.02)
    return {"f1": accuracy + 0.03, "accuracy": accuracy} if task == "mrpc" else {"accuracy": accuracy}


def unfinished(found: RunReport) -> RunReport:
    nothing: dict[str, Any] = {"metric": None, "sparsity": None, "pattern_ok": None, "steps": None, "examples": None}
    return replace(found, final={}, best={}, seconds={}, parts={}, **nothing)


def folder_name(task: str, model: str, pattern: str, seed: int, target: float | None = None) -> str:
    name = f"{pattern}-{target or 0:g}" if pattern != "dense" else pattern
    return "/".join(as_folder_name(part) for part in (task, model, f"{name}-seed{seed}"))


def as_folder_name(part: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in part)


def folder_of(root: Path, found: RunReport) -> Path:
    return root / folder_name(
        found.spec.task, found.spec.model, found.spec.pattern, found.spec.seed, found.spec.target_sparsity
    )


def kept(found: RunReport, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_report(found, folder)
    return folder


def planned(found: RunReport, folder: Path) -> Planned:
    return Planned(found.spec, folder, found.spec.overrides, steps=60)


def write_history(folder: Path, found: RunReport, steps: int = 60) -> None:
    """A line every 10 steps, an evaluation every 20; seed 1 has a null and an incomplete last line."""
    chance = random.Random(f"{found.spec.hash}")
    lines: list[dict[str, float | None]] = []
    for step in range(10, steps + 1, 10):
        loss: float | None = 3 / step + chance.uniform(0, 0.1)
        line: dict[str, float | None] = {
            "step": step,
            "train/loss": None if found.spec.seed == 1 and step == 20 else loss,
        }
        if found.spec.phase == "sparse":
            line["sparsity/global"] = (found.spec.target_sparsity or 0.5) * step / 60
        lines.append(line)
        if step % 20 == 0:
            scores = score_of(found.spec.task, found.spec.model, found.spec.pattern, found.spec.seed)
            logged = {f"eval/{name}": (value or 0) * step / 60 for name, value in scores.items()}
            lines.append({"step": step, "epoch": step / 20, **logged})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + ('{"step": 70, "train/lo' if found.spec.seed == 1 else ""))


def masks_of(pattern: str, seed: int) -> dict[str, NDArray[np.bool_]]:
    """True: kept. The attention of `mixed` is 4x1, its other layer has no pattern."""
    chance = np.random.default_rng(seed)
    rows, columns = SHAPE
    zeros = TARGETS.get(pattern, 0.5)
    masks = {}
    for name in (QUERY, FFN):
        shape = {"mixed": "4x1" if name == QUERY else "1x1"}.get(pattern, pattern)
        if shape == "2:4":
            masks[name] = (chance.random((rows, columns // 4, 4)).argsort(axis=2) < 2).reshape(SHAPE)
        elif shape == "1xchannel":
            masks[name] = np.repeat(chance.random((rows, 1)) >= zeros, columns, axis=1)
        else:
            tall = 4 if shape == "4x1" else 1
            masks[name] = np.repeat(chance.random((rows // tall, columns)) >= zeros, tall, axis=0)
    return masks | {HEAD: np.ones((2, columns), dtype=bool)}


def write_model(folder: Path, masks: dict[str, NDArray[np.bool_]], seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    weights = {
        f"{name}.weight": (mask * (1 + chance.random(mask.shape))).astype(np.float32) for name, mask in masks.items()
    }
    (folder / "config.json").write_text("{}")
    save_file(weights, folder / "model.safetensors")


def comparison(found: Records, task: str = "mrpc", model: str = "bert_mini") -> Comparison:
    (wanted,) = [comparison for comparison in found.comparisons if (comparison.task, comparison.model) == (task, model)]
    return wanted
