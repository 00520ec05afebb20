"""One run: finished already? Build, fit, save, report; or record the failure."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig

from hydraprune.config import instantiate as assembly
from hydraprune.config.archive import as_yaml
from hydraprune.errors import UserError, one_line
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.models.saving import save_model
from hydraprune.results.curves import NAME as METRICS
from hydraprune.results.model_card import model_card
from hydraprune.results.report import NAME, RunReport, read_report, write_report
from hydraprune.results.sparsity_counts import count_sparsity
from hydraprune.results.summary import summary
from hydraprune.runs import dense as ancestor
from hydraprune.runs import preflight as checks
from hydraprune.runs import setup as building
from hydraprune.runs.description import about, blank, outcome, told, versions
from hydraprune.runs.experiment import Request
from hydraprune.runs.failures import in_words
from hydraprune.tracking import JsonLines, ProgressBar, RunTracker, Several, guarded
from hydraprune.training.checkpoints import Checkpoints
from hydraprune.training.loop import fit
from hydraprune.training.parameter_groups import not_finite
from hydraprune.training.step import Clock
from hydraprune.utils import signals as stopping
from hydraprune.utils.files import PROBE, check_place, write_text

log = logging.getLogger(__name__)


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
    check_place(directory, key)
    refuse_links(directory, key)
    if not directory.is_dir() or all(_before_a_run(path) for path in directory.iterdir()):
        return
    stamp = directory / "config.yaml"
    if stamp.is_file() and stamp.read_text(encoding="utf-8").startswith(_stamp(request)):
        return
    report = read_report(directory)
    what = (
        "other files"
        if report is None
        else f"another run ({report.spec.task}, {report.spec.model}, {report.spec.pattern})"
    )
    raise UserError(f"{key}={directory}: holds {what}; give an empty folder, or one that does not exist yet")


def refuse_links(directory: Path, key: str) -> None:
    """A folder may be reached by links; but what a run writes, cuts and removes in it is its own.

    Raises:
        UserError: naming the link.
    """
    for name in (*_BEFORE_A_RUN, "config.yaml", NAME, METRICS, "checkpoints", "model"):
        if (directory / name).is_symlink():
            raise UserError(f"{key}={directory}: {name} in there is a link; give an empty folder, or remove the link")


def _before_a_run(path: Path) -> bool:
    # A stamp that was being written when its process was killed is none; and others may look at this folder as we do.
    half_written = path.name.startswith(".config.yaml.") and path.name.endswith(".tmp")
    return path.name in _BEFORE_A_RUN or half_written or path.name.startswith(PROBE) or _is_hydras(path)


def _is_hydras(path: Path) -> bool:
    """Whether this is what Hydra keeps of a job, in the folder that `hydra.output_subdir` names."""
    with suppress(OSError):
        return {file.name for file in path.iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    return False


def _stamp(request: Request) -> str:
    return f"# run {request.hash}\n"


def execute(request: Request) -> RunReport:
    """Carry a run out, its dense ancestor first, from where it was cut if it was; or find it finished.

    The same request twice at once: the second waits, and finds it finished.

    Raises:
        UserError: a mistake that only the run could tell, such as scores that are not finite.
    """
    try:
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
    except Exception as error:
        in_our_words = in_words(error, request)
        if in_our_words is error:
            raise
        raise in_our_words from error


@contextmanager
def _locked(request: Request) -> Iterator[None]:
    lock = FileLock(request.directory / ".lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("Another process is at this very run: waiting for %s", request.directory)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"run.root: cannot lock {request.directory} ({one_line(error)}); give a folder on a file system with locks"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _carry_out(request: Request) -> RunReport:
    checkpoints = _checkpoints(request)
    with ExitStack() as stack:
        try:
            write_text(request.directory / "config.yaml", _stamp(request) + as_yaml(request.config))
            write_report(blank(request), request.directory)
            report, tracker = _train(request, checkpoints, stack)
            write_report(report, request.directory)
        except Exception as error:
            # Checkpoints stay: what failed may have been the disk. An interrupt is no failure: the run was cut.
            with suppress(OSError):
                write_report(
                    replace(blank(request), status="failed", error=one_line(in_words(error, request))),
                    request.directory,
                )
            raise
        checkpoints.discard()
        tracker.end(outcome(report, request.directory / "model"))
    return report


def _tell_from(step: int, request: Request) -> None:
    """Say in the report which step the run goes on from; its time stays that at which this piece of the run began."""
    place = request.directory / NAME
    before = place.stat()
    write_report(replace(blank(request), from_step=step), request.directory)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))


def _checkpoints(request: Request) -> Checkpoints:
    # The report says of one set of versions, and of one device, that they made the result.
    stamp = {"run": request.hash, "versions": versions(), "machine": {"cuda": torch.cuda.is_available()}}
    return Checkpoints(request.directory / "checkpoints", stamp, request.directory / METRICS)


def _train(request: Request, checkpoints: Checkpoints, stack: ExitStack) -> tuple[RunReport, RunTracker]:
    """The run up to its report; the tracker is closed when `stack` is, and learns what ended the run."""
    config, directory = request.config, request.directory
    dense, dense_report = (None, None)
    if config.phase == "sparse":
        dense, dense_report = ancestor.ensure(request, execute)
    # Only now: the time of a dense model trained on the way is in its own report.
    clock = Clock()
    with clock.measure("other"):
        start = checkpoints.newest()
        if start.step:
            # Before the metrics are cut to what stays: from then on whoever watches counts from this step.
            _tell_from(start.step, request)
    if start.threads is not None and start.threads != (config.runtime.threads or building.OWN_THREADS):
        # Started again on another machine, to the bits that the first would have come to.
        log.info("Goes on with %d threads, as it began (this machine: %d)", start.threads, building.OWN_THREADS)
        config = copy.deepcopy(config)
        config.runtime.threads = start.threads
    if config.recipe.source == "none":
        log.info(
            "No recipe for %s on %s (%s): using general defaults", config.model.name, config.task.name, config.phase
        )

    tracker = Several(
        [
            JsonLines(directory / METRICS, start.lines),
            # Before the bar, which what it says at its start would cut.
            guarded(assembly.make(config, "tracker")),
            ProgressBar(shown=None if request.alone else False),
        ]
    )
    stack.push(lambda kind, error, trace: tracker.close(error))

    def started(steps: int) -> RunTracker:
        tracker.start(about(request, steps, start.step))
        return tracker

    with clock.measure("other"):
        built = building.build(config, dense, started)
        dense_values = _dense_values(config, dense, dense_report)
    clock.move(built.asking, "other", "teacher")
    # From here to the end of `stack`: a run whose training is done is not cut while it is saved.
    stack.enter_context(stopping.deferred())
    progress = fit(built.run, clock, start, checkpoints)
    if lost := not_finite(built.run.model):
        raise UserError(
            f"optimizer.lr={config.optimizer.get('lr')}: after step {progress.step} {lost} is not finite; lower the "
            f"learning rate, or clip gradients: training.max_grad_norm=1"
        )
    with clock.measure("other"):
        saved = save_model(built.run.model, built.tokenizer, directory)
        # Counted on what was written, not on what was in memory.
        counted = count_sparsity(PretrainedModel("saved", str(saved)).load(), built.run.pruners)
    report = told(request, built, progress, counted, dense_values, clock.seconds())
    write_text(saved / "README.md", model_card(report))
    return report, tracker


def _dense_values(config: DictConfig, dense: str | None, report: RunReport | None) -> dict[str, Any] | None:
    if dense is None:
        return None
    if report is not None:
        return {**report.final, "run": dense.removesuffix("/model")}
    log.info("Scoring the dense model %s", dense)
    return {**building.evaluate_model(config, dense, "dense.source"), "run": dense}


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
