"""One run: finished already? Build, fit, save, report; or record the failure."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from hydraprune import ancestor, assembly, building, checks
from hydraprune.deploy.saved import model_card, save_model
from hydraprune.errors import UserError
from hydraprune.hub.models import PretrainedModel
from hydraprune.identity import snake
from hydraprune.request import Request
from hydraprune.results.report import RunReport, read_report, write_report, write_text
from hydraprune.results.sparsity import Figures, figures
from hydraprune.results.summary import summary
from hydraprune.sparsity import SparsityError
from hydraprune.tracking import JsonLines, ProgressBar, Several
from hydraprune.training.checkpoints import Checkpoints
from hydraprune.training.contracts import Progress, Tracker
from hydraprune.training.loop import fit
from hydraprune.training.step import Clock
from hydraprune.training.teachers import NoTeacher, OnlineTeacher, StoredTeacher

log = logging.getLogger(__name__)

_PACKAGES = ("hydraprune", "torch", "transformers", "datasets", "evaluate", "accelerate", "hydra-core")
_METRICS = "metrics.jsonl"


def preflight(request: Request) -> None:
    """Everything that can be refused before a directory is made.

    Raises:
        UserError: see `checks.check`; or the run's directory holds something else, or cannot be written.
    """
    if ancestor.finished(request) is not None:
        return
    refuse_foreign(request)
    before = ancestor.of(request)
    if before is not None and ancestor.finished(before) is None:
        refuse_foreign(before)
        examine(before)
    examine(request)


def examine(request: Request) -> checks.Needs:
    """Check a run that is not finished; what it will take. Nothing here depends on its seed or its directory.

    Raises:
        UserError: see `checks.check`.
    """
    source = None if request.config.phase == "dense" else str(request.config.dense.source)
    return checks.check(request.config, None if source == ancestor.AUTO else source)


# What Hydra, the lock and the log leave in a folder before the run itself does.
_BEFORE_A_RUN = {".hydra", ".lock", "train.log"}


def refuse_foreign(request: Request) -> None:
    """Refuse a directory that holds anything but this very run.

    Raises:
        UserError: naming what is there.
    """
    directory = request.directory
    ours = Path(request.config.run.root) / request.identity.folder
    key = "run.root" if directory == ours else "hydra.run.dir"
    checks.check_place(directory, key)
    if not directory.is_dir() or all(_before_a_run(path.name) for path in directory.iterdir()):
        return
    stamp = directory / "config.yaml"
    if stamp.is_file() and stamp.read_text(encoding="utf-8").startswith(_stamp(request)):
        return
    report = read_report(directory)
    what = "other files" if report is None else f"another run ({report.task}, {report.model}, {report.pattern})"
    raise UserError(f"{key}={directory}: holds {what}; give an empty folder, or one that does not exist yet")


def _before_a_run(name: str) -> bool:
    # A stamp that was being written when its process was killed is none.
    return name in _BEFORE_A_RUN or (name.startswith(".config.yaml.") and name.endswith(".tmp"))


def _stamp(request: Request) -> str:
    return f"# run {request.hash}\n"


def execute(request: Request) -> RunReport:
    """Carry a run out, its dense ancestor first, from where it was cut if it was; or find it finished.

    The same request twice at once: the second waits, and finds it finished.

    Raises:
        UserError: a mistake that only the run could tell, such as scores that are not finite.
    """
    request.directory.mkdir(parents=True, exist_ok=True)
    with _locked(request), _logged(request):
        report = ancestor.finished(request)
        if report is not None:
            log.info("Finished already: %s", request.directory)
            _checkpoints(request).discard()
        else:
            refuse_foreign(request)
            report = _carry_out(request)
        log.info("\n%s\n", summary(report, request.directory))
        return report


@contextmanager
def _locked(request: Request) -> Iterator[None]:
    lock = FileLock(request.directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("Another process is at this very run: waiting for %s", request.directory)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _carry_out(request: Request) -> RunReport:
    write_text(request.directory / "config.yaml", _stamp(request) + OmegaConf.to_yaml(request.config))
    write_report(_blank(request), request.directory)
    checkpoints = _checkpoints(request)
    try:
        report = _train(request, checkpoints)
    except Exception as error:
        # An interrupt is none: the run was cut, and goes on from its last checkpoint. Before the report: where there
        # are checkpoints, the run did not fail.
        checkpoints.discard()
        write_report(replace(_blank(request), status="failed", error=one_line(error)), request.directory)
        if isinstance(error, SparsityError):
            raise UserError(str(error)) from error
        raise
    write_report(report, request.directory)
    checkpoints.discard()
    return report


def _checkpoints(request: Request) -> Checkpoints:
    # The report says of one set of versions that they made the result.
    stamp = {"run": request.hash, "versions": _versions()}
    return Checkpoints(request.directory / "checkpoints", stamp, request.directory / _METRICS)


def one_line(error: BaseException) -> str:
    """An error as a report keeps it."""
    kind = "" if isinstance(error, (UserError, SparsityError)) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())


def _train(request: Request, checkpoints: Checkpoints) -> RunReport:
    config, directory = request.config, request.directory
    dense, dense_report = (None, None)
    if config.phase == "sparse":
        dense, dense_report = ancestor.ensure(request, execute)
    # Only now: the time of a dense model trained on the way is in its own report.
    clock = Clock()
    with clock.measure("other"):
        start = checkpoints.newest()
    if config.recipe.source == "none":
        log.info(
            "No recipe for %s on %s (%s): using general defaults", config.model.name, config.task.name, config.phase
        )
    tracker: Tracker | None = None

    def trackers(steps: int) -> Tracker:
        nonlocal tracker
        name = f"{config.task.name} {request.identity.folder.split('/')[2]}"
        mine = assembly.make(config, "tracker")
        lines = JsonLines(directory / _METRICS, start.lines)
        bar = ProgressBar(steps, name, start.step, shown=None if request.alone else False)
        tracker = Several([lines, mine, bar])
        return tracker

    try:
        with clock.measure("other"):
            built = building.build(config, dense, trackers)
            dense_values = _dense_values(config, dense, dense_report)
        clock.move(built.asking, "other", "teacher")
        progress = fit(built.run, clock, start, checkpoints)
    finally:
        if tracker is not None:
            with clock.measure("other"):
                tracker.close()
    with clock.measure("other"):
        saved = save_model(built.run.model, built.tokenizer, directory)
        # Counted on what was written, not on what was in memory.
        counted = figures(PretrainedModel("saved", str(saved)).load(), built.run.pruners)
    report = _finished(request, built, progress, counted, dense_values, clock.seconds())
    write_text(saved / "README.md", model_card(report))
    return report


def _dense_values(config: DictConfig, dense: str | None, report: RunReport | None) -> dict[str, Any] | None:
    if dense is None:
        return None
    if report is not None:
        return {**report.final, "run": dense.removesuffix("/model")}
    log.info("Scoring the dense model %s", dense)
    return {**building.evaluate_model(config, dense, "dense.source"), "run": dense}


def _blank(request: Request) -> RunReport:
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
        criterion=_shared(snake(type(plan.criterion).__name__) for plan in pattern.parts.values()),
        scheduler=_shared(snake(type(plan.schedule).__name__) for plan in pattern.parts.values()),
        recipe={"name": config.recipe.name, "source": config.recipe.source},
        seed=config.seed,
        target_sparsity=pattern.target_sparsity,
        precision=config.training.precision,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _shared(words: Iterable[str]) -> str | None:
    """The word that all parts share; `mixed` when they differ, None without parts."""
    different = set(words)
    return None if not different else different.pop() if len(different) == 1 else "mixed"


# How it was asked may differ by rounding, where a cache had no room for its answers.
_TEACHERS: dict[type, str | None] = {NoTeacher: None, OnlineTeacher: "online", StoredTeacher: "stored"}


def _finished(
    request: Request,
    built: building.Built,
    progress: Progress,
    counted: Figures,
    dense: dict[str, Any] | None,
    seconds: dict[str, float],
) -> RunReport:
    device = built.run.accelerator.device
    return replace(
        _blank(request),
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
        seconds={name: round(value, 3) for name, value in seconds.items()},
        teacher=_TEACHERS[type(built.run.teacher)],
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})",
    )


@contextmanager
def _logged(request: Request) -> Iterator[None]:
    """Keep what is logged during a run in its train.log."""
    handler = logging.FileHandler(request.directory / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def record_refusal(request: Request | None, directory: Path, overrides: list[str], error: BaseException) -> None:
    """Leave a failed report for a job of a multirun that was refused before it began.

    Args:
        request: None when the config itself is wrong.
        directory: of refusals; never the job's own folder, which may hold something else.
    """
    report = RunReport("failed", "", "", overrides, "", "", "", "", None, None, {}, 0)
    if request is not None:
        report = replace(_blank(request), status="failed")
    directory.mkdir(parents=True, exist_ok=True)
    write_report(replace(report, error=one_line(error)), directory)
