"""What is said of a run: before it starts, when it is refused, when it is done."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hydraprune.config import instantiate as assembly
from hydraprune.config.composition import plain
from hydraprune.errors import UserError
from hydraprune.results.mask_crops import mask_parts
from hydraprune.results.report import RunReport, write_report
from hydraprune.results.sparsity_counts import Figures
from hydraprune.runs.experiment import Request
from hydraprune.runs.setup import Built
from hydraprune.sparsity import SparsityError
from hydraprune.tracking import About, Mask, Outcome
from hydraprune.training.settings import Settings
from hydraprune.training.state import Progress
from hydraprune.training.teachers import GroupedTeacher, NoTeacher, OnlineTeacher, StoredTeacher
from hydraprune.utils.names import snake
from hydraprune.utils.redaction import redacted

_PACKAGES = ("hydraprune", "torch", "transformers", "datasets", "evaluate", "accelerate", "hydra-core")


def blank(request: Request) -> RunReport:
    """What can be said of a run before it starts."""
    config = request.config
    pattern = assembly.plans(config)
    return RunReport(
        status="started",
        hash=request.hash,
        cell=request.identity.cell,
        overrides=list(request.overrides),
        phase=config.phase,
        model=config.model.name,
        task=config.task.name,
        pattern=pattern.name,
        criterion=_shared(plan.criterion.name for plan in pattern.parts.values() if plan.criterion),
        scheduler=_shared(snake(type(plan.schedule).__name__) for plan in pattern.parts.values()),
        recipe={"name": config.recipe.name, "source": config.recipe.source},
        seed=config.seed,
        target_sparsity=pattern.target_sparsity,
        precision=config.training.get("precision", Settings.precision),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Of Python and of the packages that make a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _shared(words: Iterable[str]) -> str | None:
    """The word that all parts share; `mixed` when they differ, None without parts."""
    different = set(words)
    return None if not different else different.pop() if len(different) == 1 else "mixed"


# The same bits on a CPU; on an accelerator rounding differs with how it was asked.
_TEACHERS: dict[type, str | None] = {
    NoTeacher: None,
    OnlineTeacher: "online",
    GroupedTeacher: "online",
    StoredTeacher: "stored",
}


def told(
    request: Request,
    built: Built,
    progress: Progress,
    counted: Figures,
    dense: dict[str, Any] | None,
    seconds: dict[str, float],
) -> RunReport:
    """The report of a run that came to its end.

    Args:
        counted: on the saved model.
        dense: metric -> value of the model that it started from.
    """
    device = built.run.accelerator.device
    return replace(
        blank(request),
        status="finished",
        metric=built.run.headline,
        final=dict(progress.final),
        best=dict(progress.best),
        dense=dense,
        units=counted.units,
        parts=counted.parts,
        sparsity=counted.sparsity,
        pattern_ok=counted.pattern_ok,
        steps=progress.step,
        examples=built.run.settings.epochs * len(built.run.train.data),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        teacher=_TEACHERS[type(built.run.teacher)],
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})",
    )


def about(request: Request, steps: int, done: int) -> About:
    """What a tracker is told of a run.

    Args:
        steps: of the whole training, of which `done` are behind it.
    """
    config, known = request.config, blank(request)
    target = "" if known.target_sparsity is None else f" {known.target_sparsity:g}"
    words = (known.task, known.model, known.pattern, known.scheduler, known.criterion)
    return About(
        id=request.hash,
        group=f"{known.task} {known.model} {known.pattern}{target} {known.cell}",
        job_type=known.phase,
        name=f"{known.task} {known.model} {known.pattern}{target} seed {known.seed}",
        tags=tuple(dict.fromkeys(word for word in words if word is not None)),
        config=redacted(plain(config)),
        directory=request.directory,
        steps=steps,
        done=done,
        asked=request.asked,
    )


def outcome(report: RunReport, model: Path) -> Outcome:
    """What a tracker is told of a run that finished."""

    def masks() -> dict[str, Mask]:
        return {part.part: Mask(part.weight, part.kept) for part in mask_parts(model, report.parts)}

    return Outcome(asdict(report), model, masks)


def record_refusal(request: Request | None, directory: Path, overrides: list[str], error: BaseException) -> None:
    """Leave a failed report for a job of a multirun that was refused before it began.

    Args:
        request: None when the config itself is wrong.
        directory: of refusals; never the job's own folder, which may hold something else.
    """
    report = RunReport("failed", "", "", overrides, "", "", "", "", None, None, {}, 0)
    if request is not None:
        report = replace(blank(request), status="failed")
    directory.mkdir(parents=True, exist_ok=True)
    write_report(replace(report, error=one_line(error)), directory)


def one_line(error: BaseException) -> str:
    """An error as a report keeps it."""
    kind = "" if isinstance(error, (UserError, SparsityError)) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())
