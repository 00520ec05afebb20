"""Made-up reports, planned jobs and folders of a sweep, and Markdown tables as dicts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saved_run_helpers import write_whole_model
from spec_helpers import changed, planned_of, report_of

from hydraprune.results.plan_file import Plan, Planned
from hydraprune.results.report import RunReport, write_report
from hydraprune.sweeps.progress import Progress, progress


def report(seed: int = 0, final: float | Mapping[str, float | None] | None = 0.5, **changes: Any) -> RunReport:
    """A finished sparse run of the tiny model; a single number is its accuracy."""
    cell = changes.pop("cell", "c" * 12)
    values: dict[str, Any] = {
        "status": "finished", "hash": f"{cell}-{seed}", "cell": cell, "overrides": [f"seed={seed}"], "phase": "sparse",
        "model": "tiny", "task": "toy", "pattern": "4x1", "criterion": "snip_momentum", "scheduler": "exp",
        "recipe": {"name": "r", "source": "ours"}, "seed": seed, "metric": "accuracy", "target_sparsity": 0.9,
        "sparsity": {"prunable": 0.9, "linear": 0.88, "model": 0.5, "per_layer": {}}, "pattern_ok": True, "steps": 30,
        "seconds": {"total": 3.0}, "precision": "fp32",
    }  # fmt: skip
    values["final"] = dict(final) if isinstance(final, Mapping) else {"accuracy": final}
    values |= changes
    if values["status"] != "finished":
        values |= {"final": {}, "metric": None, "sparsity": None, "pattern_ok": None, "steps": None, "seconds": {}}
    return report_of(**values)


def job(seed: int = 0, directory: Path | str = "nowhere", **changes: Any) -> Planned:
    """The planned job of such a run."""
    cell = changes.pop("cell", "c" * 12)
    values: dict[str, Any] = {
        "hash": f"{cell}-{seed}", "cell": cell, "phase": "sparse", "model": "tiny", "task": "toy", "pattern": "4x1",
        "target_sparsity": 0.9, "seed": seed, "precision": "fp32", "directory": Path(directory),
        "words": (f"seed={seed}",), "steps": 30,
    }  # fmt: skip
    return planned_of(**{**values, **changes})


SINCE = time.time() - 1000


def begun(job: Planned, status: str, ago: float = 0.0, lines: str | None = None, **changes: Any) -> Planned:
    """The job with a report of that status, written `ago` seconds before the start of the sweep (negative: after)."""
    job.directory.mkdir(parents=True)
    found = report(job.spec.seed, status=status, error="not finite" if status == "failed" else None)
    write_report(changed(found, hash=job.spec.hash, **changes), job.directory)
    if status == "finished":
        write_whole_model(job.directory / "model")
    os.utime(job.directory / "report.json", (SINCE - ago, SINCE - ago))
    if lines is not None:
        (job.directory / "metrics.jsonl").write_text(lines)
    return job


def look(
    *jobs: Planned,
    ancestors: tuple[Planned, ...] = (),
    evidence: tuple[RunReport, ...] = (),
    since: float = SINCE,
) -> Progress:
    return progress(Plan((), 1, jobs, ancestors), since, evidence)


def jobs_in(folder: Path, count: int) -> list[Planned]:
    return [job(seed, folder / str(seed), refusal=folder / "refused" / str(seed)) for seed in range(count)]


def table(markdown: str, heading: str) -> list[dict[str, str]]:
    """The rows of the table under a heading; repeated column names get a number."""
    lines = markdown.split(f"# {heading}\n\n", 1)[1].split("\n\n", 1)[0].splitlines()
    split = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if "---" not in line]
    before = [split[0][:place].count(name) for place, name in enumerate(split[0])]
    names = [f"{name} {count + 1}" if count else name for name, count in zip(split[0], before, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in split[1:]]
