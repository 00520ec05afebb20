"""One run: finished already? Build, fit, save, report; or record the failure."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from hydraprune import ancestor, assembly, checks
from hydraprune.deploy.saved import model_card, save_model
from hydraprune.errors import UserError
from hydraprune.hub.models import PretrainedModel
from hydraprune.request import Request
from hydraprune.results.report import RunReport, read_report, write_report, write_text
from hydraprune.results.sparsity import Figures, figures
from hydraprune.results.summary import summary
from hydraprune.tracking import JsonLines, ProgressBar, Several
from hydraprune.training.contracts import Outcome, Tracker
from hydraprune.training.loop import fit

log = logging.getLogger(__name__)

_PACKAGES = ("hydraprune", "torch", "transformers", "datasets", "evaluate", "accelerate", "hydra-core")


def preflight(request: Request) -> None:
    """Everything that can be refused before a directory is made.

    Raises:
        UserError: see `checks.check`; or the run's directory holds another run.
    """
    if ancestor.finished(request) is not None:
        return
    refuse_foreign(request)
    dense = None
    if request.config.phase == "sparse":
        source = str(request.config.dense.source)
        dense = None if source == ancestor.AUTO else source
        if dense is None:
            before = ancestor.dense_request(request)
            if ancestor.finished(before) is None:
                refuse_foreign(before)
                checks.check(before.config, None)
    checks.check(request.config, dense)


def refuse_foreign(request: Request) -> None:
    """Refuse a directory that holds another run.

    Raises:
        UserError: naming both runs.
    """
    directory = request.directory
    if not directory.exists():
        return
    report = read_report(directory)
    if report is not None and report.hash != request.hash:
        raise UserError(
            f"hydra.run.dir={directory}: holds another run ({report.task}, {report.model}, {report.pattern}, "
            f"{report.hash}); this one is {request.hash}: give an empty folder"
        )
    stamp = directory / "config.yaml"
    if report is None and stamp.exists() and f"# run {request.hash}\n" not in stamp.read_text(encoding="utf-8"):
        raise UserError(f"hydra.run.dir={directory}: holds another run's config.yaml; give an empty folder")


def execute(request: Request) -> RunReport:
    """Carry a run out, its dense ancestor first; or find it finished.

    The same request twice at once: the second waits, and finds it finished.
    """
    request.directory.mkdir(parents=True, exist_ok=True)
    with FileLock(request.directory / ".lock"), _logged(request):
        report = ancestor.finished(request)
        if report is not None:
            log.info("Finished already: %s", request.directory)
        else:
            refuse_foreign(request)
            report = _carry_out(request)
        log.info("\n%s\n", summary(report, request.directory))
        return report


def _carry_out(request: Request) -> RunReport:
    start = time.perf_counter()
    text = OmegaConf.to_yaml(request.config)
    write_text(request.directory / "config.yaml", f"# run {request.hash}\n{text}")
    try:
        report = _train(request, start)
    except BaseException as error:
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        write_report(replace(_blank(request), status="failed", error=message), request.directory)
        raise
    write_report(report, request.directory)
    return report


def _train(request: Request, start: float) -> RunReport:
    config, directory = request.config, request.directory
    dense, dense_report = (None, None)
    if config.phase == "sparse":
        dense, dense_report = ancestor.ensure(request, execute)
    if config.recipe.source == "none":
        log.info(
            "No recipe for %s on %s (%s): using general defaults", config.model.name, config.task.name, config.phase
        )
    tracker: Tracker | None = None

    def trackers(steps: int) -> Tracker:
        nonlocal tracker
        name = f"{config.task.name} {request.identity.folder.split('/')[2]}"
        mine = assembly.make(config, "tracker")
        tracker = Several([JsonLines(directory / "metrics.jsonl"), mine, ProgressBar(steps, name)])
        return tracker

    try:
        built = assembly.build(config, dense, trackers)
        dense_values = _dense_values(config, dense, dense_report)
        outcome = fit(built.run)
    finally:
        if tracker is not None:
            tracker.close()
    saved = save_model(built.run.model, built.tokenizer, directory)
    # Counted on what was written, not on what was in memory.
    counted = figures(PretrainedModel("saved", str(saved)).load(), built.run.pruners)
    seconds = {"total": time.perf_counter() - start, **outcome.seconds}
    report = _finished(request, built, outcome, counted, dense_values, seconds)
    write_text(saved / "README.md", model_card(report))
    return report


def _dense_values(config: DictConfig, dense: str | None, report: RunReport | None) -> dict[str, Any] | None:
    if dense is None:
        return None
    if report is not None:
        return {**report.final, "run": dense.removesuffix("/model")}
    log.info("Scoring the dense model %s", dense)
    return {**assembly.evaluate_model(config, dense, "dense.source"), "run": dense}


def _blank(request: Request) -> RunReport:
    """What can be said of a run before it starts."""
    config = request.config
    pattern = assembly.plans(config)
    sparse = config.phase == "sparse"
    return RunReport(
        status="started",
        hash=request.hash,
        cell=request.identity.cell,
        overrides=list(request.overrides),
        phase=config.phase,
        model=config.model.name,
        task=config.task.name,
        pattern=pattern.name,
        criterion=request.choices.get("pruner") if sparse else None,
        scheduler=request.choices.get("scheduler") if sparse else None,
        recipe={"name": config.recipe.name, "source": config.recipe.source},
        seed=config.seed,
        target_sparsity=pattern.target_sparsity,
        precision=config.training.precision,
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    )


def _finished(
    request: Request,
    built: assembly.Built,
    outcome: Outcome,
    counted: Figures,
    dense: dict[str, Any] | None,
    seconds: dict[str, float],
) -> RunReport:
    device = built.run.accelerator.device
    return replace(
        _blank(request),
        status="finished",
        metric=built.run.headline,
        final=outcome.final,
        best=outcome.best,
        dense=dense,
        units=counted.units,
        parts=counted.parts,
        sparsity=counted.sparsity,
        pattern_ok=counted.pattern_ok,
        steps=outcome.steps,
        seconds={name: round(value, 3) for name, value in seconds.items()},
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


def record_failure(directory: Path, overrides: list[str], error: str) -> None:
    """Leave a failed report for a job that did not come as far as writing its own."""
    if read_report(directory) is None:
        directory.mkdir(parents=True, exist_ok=True)
        blank = RunReport("failed", "", "", overrides, "", "", "", "", None, None, {}, 0, error=error)
        write_report(blank, directory)
