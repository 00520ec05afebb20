"""One run from its experiment to its report: found finished, or trained, saved and reported."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from hydraprune.config.archive import as_yaml
from hydraprune.config.instantiate import make
from hydraprune.errors import UserError, one_line
from hydraprune.models.head_classes import problem_of
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.models.saving import save_model
from hydraprune.models.slim_sizes import sizes_of
from hydraprune.results.curves import NAME as METRICS
from hydraprune.results.model_card import model_card
from hydraprune.results.report import NAME, RunReport, finished_run, write_report
from hydraprune.results.sparsity_counts import count_sparsity
from hydraprune.results.summary import summary
from hydraprune.runs import setup
from hydraprune.runs.dense import dense_model
from hydraprune.runs.description import about, finished_report, outcome, started_report, versions
from hydraprune.runs.directory import CHECKPOINTS, check_directory, clean_directory, finished, stamp
from hydraprune.runs.experiment import Experiment
from hydraprune.runs.failures import as_user_error
from hydraprune.runs.followers import Order
from hydraprune.runs.inputs import check_model
from hydraprune.runs.setup import TaskLoader
from hydraprune.tracking import JsonLines, ProgressBar, RunTracker, Several, guarded
from hydraprune.training.checkpoints import Checkpoints, Start
from hydraprune.training.clock import Clock
from hydraprune.training.loop import fit
from hydraprune.training.nan_guard import first_nonfinite
from hydraprune.training.processes import Processes
from hydraprune.utils import signals
from hydraprune.utils.digests import weights_digest
from hydraprune.utils.files import write_text

log = logging.getLogger(__name__)


def execute(
    experiment: Experiment, load_data: TaskLoader | None = None, opened: Callable[[], None] | None = None
) -> RunReport:
    """Complete a run, its dense run first, from its last checkpoint if there is one; or find it finished.

    If another process is running it, this one waits and then finds it finished.

    Args:
        load_data: the loader that preflight used, which holds the data.
        opened: called once the directory is locked and known to be this run's, before the run writes there.

    Raises:
        UserError: a mistake that shows only while training, such as scores that are not finite.
    """
    try:
        experiment.directory.mkdir(parents=True, exist_ok=True)
        with _locked(experiment.directory), _logged(experiment.directory):
            report = finished(experiment)
            if report is None:
                check_directory(experiment)
            clean_directory(experiment)
            if opened is not None:
                opened()
            if report is not None:
                check_model(experiment, report)
                log.info("Finished already: %s", experiment.directory)
                _checkpoints(experiment).discard()
            else:
                report = _complete(experiment, load_data or TaskLoader())
            log.info("\n%s\n", summary(report, experiment.directory))
            return report
    except Exception as error:
        mistake = as_user_error(error, experiment)
        if mistake is None:
            raise
        raise mistake from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    lock = FileLock(directory / ".lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("Waiting for %s: another process is running it", directory)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"cannot lock {directory} ({one_line(error)})",
            key="run.root",
            cure="give a folder on a file system with locks",
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _logged(directory: Path) -> Iterator[None]:
    """Write what is logged during a run to its train.log."""
    handler = logging.FileHandler(directory / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _complete(experiment: Experiment, load_data: TaskLoader) -> RunReport:
    directory, checkpoints = experiment.directory, _checkpoints(experiment)
    with _failure_recorded(experiment):
        write_text(directory / "config.yaml", stamp(experiment) + as_yaml(experiment.config))
        write_report(started_report(experiment), directory)
        dense, dense_report = dense_model(experiment, lambda dense: execute(dense, load_data))
        # The clock starts here: the time that a dense run takes is in its own report.
        clock = Clock()
        with clock.measure("other"):
            start = _resumed(experiment, checkpoints)
        with _tracked(experiment, start) as tracker:
            with clock.measure("other"):
                Processes.current().hand_out(Order(experiment.spec.hash, dense, start))
                prepared = setup.prepare(experiment, dense, load_data, start.threads)
                prepared.provenance.log()
                tracker.start(about(experiment, prepared.steps, start.step))
                training = prepared.training(tracker)
                dense_scores = _dense_scores(experiment, dense, dense_report, load_data)
            clock.move(prepared.teacher_seconds, "other", "teacher")
            # Once training is done the run is not interrupted while it is saved and reported.
            with signals.deferred():
                progress = fit(training, clock, start, checkpoints)
                _check_finite(experiment, training.model, progress.step)
                with clock.measure("other"):
                    saved = save_model(training.model, prepared.tokenizer, directory)
                    # Counted on what was written, not on what was in memory.
                    pretrained = PretrainedModel("saved", str(saved))
                    counted = count_sparsity(pretrained.load(), training.pruners)
                report = finished_report(
                    experiment, training, progress, counted, dense_scores, clock.seconds(), prepared.provenance
                )
                report = replace(report, weights=weights_digest(saved))
                card = model_card(report, sizes_of(pretrained.config()) is not None, problem_of(pretrained.config()))
                write_text(saved / "README.md", card)
                write_report(report, directory)
                checkpoints.discard()
                tracker.end(outcome(report, saved))
    return report


@contextmanager
def _failure_recorded(experiment: Experiment) -> Iterator[None]:
    """Write a failed report if an error ends the run, and a stopped one if its stop file does.

    Checkpoints stay: the error may have been the disk's. An interrupt is not a failure: the run can be resumed.
    """
    try:
        yield
    except signals.Stopped:
        if signals.is_given_up():
            with suppress(OSError):
                write_report(replace(started_report(experiment), status="stopped"), experiment.directory)
        raise
    except Exception as error:
        if finished_run(experiment.directory, experiment.spec.hash) is None:
            shown = one_line(as_user_error(error, experiment) or error)
            with suppress(OSError):
                failed = replace(started_report(experiment), status="failed", error=shown)
                write_report(failed, experiment.directory)
        raise


@contextmanager
def _tracked(experiment: Experiment, start: Start) -> Iterator[RunTracker]:
    """The run's trackers, closed at the end with the error that ended the run, if any."""
    tracker = Several(
        [
            JsonLines(experiment.directory / METRICS, start.metrics_size),
            # Before the progress bar, which messages of its start would break.
            guarded(make(experiment.config, "tracker")),
            ProgressBar(shown=None if experiment.alone else False),
        ]
    )
    try:
        yield tracker
    except BaseException as error:
        tracker.close(error)
        raise
    tracker.close(None)


def _checkpoints(experiment: Experiment) -> Checkpoints:
    # A report names one set of versions and one device for the whole run.
    made_by = {"run": experiment.spec.hash, "versions": versions(), "machine": {"cuda": torch.cuda.is_available()}}
    directory = experiment.directory
    return Checkpoints(directory / CHECKPOINTS, made_by, directory / METRICS)


def _resumed(experiment: Experiment, checkpoints: Checkpoints) -> Start:
    """The last checkpoint, if there is one; logged and reported with the step that the run resumes from."""
    start = checkpoints.latest()
    if start.step:
        # Before the metrics are truncated: a live view counts from this step.
        _report_resumed_step(start.step, experiment)
    threads = setup.threads_of(experiment)
    if start.threads is not None and start.threads != threads:
        log.info("Resuming with %d threads as before (this machine has %d)", start.threads, threads)
    if experiment.spec.recipe["source"] == "none":
        spec = experiment.spec
        log.info("No recipe for %s on %s (%s): using general defaults", spec.model, spec.task, spec.phase)
    return start


def _report_resumed_step(step: int, experiment: Experiment) -> None:
    """Write the step into the report, and keep its modification time: when this part of the run began."""
    place = experiment.directory / NAME
    before = place.stat()
    write_report(replace(started_report(experiment), from_step=step), experiment.directory)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))


def _check_finite(experiment: Experiment, model: torch.nn.Module, step: int) -> None:
    if weight := first_nonfinite(model):
        raise UserError(
            f"after step {step} {weight} is not finite",
            key="optimizer.lr",
            value=experiment.config["optimizer"].get("lr"),
            cure="lower the learning rate, or clip gradients: training.max_grad_norm=1",
        )


def _dense_scores(
    experiment: Experiment, dense: str | None, report: RunReport | None, load_data: TaskLoader
) -> dict[str, Any] | None:
    """Metric -> value of the dense model, and its folder or hub id as `run`."""
    if dense is None:
        return None
    if report is not None:
        return {**report.final, "run": dense.removesuffix("/model")}
    log.info("Scoring the dense model %s", dense)
    return {**setup.evaluate_model(experiment, dense, "dense.source", load_data), "run": dense}
