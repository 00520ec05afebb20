"""What Hydra calls: the preflight before it makes a folder, and the job.

Light to import: torch and Hugging Face are loaded when a run starts.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from hydraprune.config.archive import DEFAULT_FOLDER, job_subfolder, keep_job, redact_file
from hydraprune.config.command_words import check_single_run
from hydraprune.config.composition import is_plan_only, loaded_paths, typed_words, with_hydra_node
from hydraprune.config.messages import explain, leave
from hydraprune.errors import UserError
from hydraprune.runs.folders import ONLY_DENSE, REFUSAL, is_planned, refusal_folder
from hydraprune.runs.resolvers import register
from hydraprune.utils import signals
from hydraprune.utils.hub_access import go_offline_if_unreachable, quiet_libraries
from hydraprune.utils.process_start import is_follower, lost_processes, process_start
from hydraprune.utils.redaction import guard_logs, guarded_terminal
from hydraprune.utils.system import let_threads_sleep

if TYPE_CHECKING:
    from hydraprune.results.report import RunReport
    from hydraprune.runs.experiment import Experiment
    from hydraprune.runs.setup import TaskLoader

log = logging.getLogger(__name__)


register()
guard_logs()
# A log record that cannot be written, on a full disk or to a closed terminal, prints no traceback of its own.
logging.raiseExceptions = False
# At import, since it must come before torch is loaded.
let_threads_sleep()


@dataclass(frozen=True)
class _Checked:
    """An experiment that passed its preflight, the loader that holds its data, and the folder for Hydra's files."""

    experiment: Experiment
    load_data: TaskLoader
    subfolder: str = DEFAULT_FOLDER


class Preflight(Callback):  # type: ignore[misc]
    """Refuses a run before Hydra makes its folder, and ends a sweep of another sweeper with its failures.

    Leaves by SystemExit: Hydra swallows other exceptions here.
    """

    # Hydra makes this callback and calls the job, and passes nothing from one to the other.
    checked: ClassVar[_Checked | None] = None

    def __init__(self) -> None:
        self.started = 0.0

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        experiment = None
        try:
            _check_start()
            if REFUSAL not in os.environ:  # the sweep that started this job has read its own words
                check_single_run(config)
            _go_offline_if_unreachable(config)
            quiet_libraries()
            subfolder = job_subfolder(config.hydra.output_subdir)
            # Imported here: the libraries read the environment once.
            from hydraprune.runs.experiment import build_single_run

            experiment = build_single_run(config)
            Preflight.checked = replace(_check(experiment), subfolder=subfolder)
            # Hydra would write its files now, with secrets, and before the run has locked its folder.
            with read_write(config.hydra):
                config.hydra.output_subdir = None
        except Exception as error:
            _keep_refusal(experiment, config, error)
            leave(error)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        # A file's time may lag behind the clock by a tick.
        self.started = time.time() - 0.05
        try:
            start = process_start(os.environ)
            if start.count > 1:
                raise UserError(
                    f"a sweep is one process, and {start.starter} started {start.count}",
                    key="-m",
                    cure=f"as in engine=here processes={start.count}, which gives each job so many",
                )
            _go_offline_if_unreachable(config)
            from hydraprune.runs.preflight import check_sweep
            from hydraprune.utils.files import check_place

            check_sweep(config.sweep)
            if config.hydra.output_subdir is not None and job_subfolder(config.hydra.output_subdir) == DEFAULT_FOLDER:
                raise UserError("is the folder of the run itself", key="hydra.output_subdir=", cure="leave it out")
            plan_only = is_plan_only(config)
            if config.get("study") is not None and not is_planned(config):
                raise UserError("a study makes its own jobs", key="hydra/sweeper", cure="leave it out")
            if not plan_only:
                check_place(Path(config.hydra.sweep.dir), "hydra.sweep.dir")
            if plan_only and not is_planned(config):
                raise UserError(
                    f"{config.hydra.sweeper._target_} makes its jobs while it runs",
                    key="plan",
                    value=config.plan,
                    cure="hydra/sweeper=hydraprune knows them beforehand",
                )
        except Exception as error:
            leave(error)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """List the failed jobs of another sweeper: a job that fails returns None and leaves a report."""
        folder = Path(config.hydra.sweep.dir)
        if is_planned(config) or not folder.is_dir():  # it failed before its first job
            return
        from hydraprune.results.report import NAME, read_report
        from hydraprune.sweeps.sweep import end_sweep
        from hydraprune.utils.files import folders_with

        redact_file(folder / "multirun.yaml")
        recent = [p for p in folders_with(NAME, folder) if (p / NAME).stat().st_mtime >= self.started]
        failed = [(job, report) for job in sorted(recent) if (report := read_report(job)) and report.status == "failed"]
        end_sweep(folder, [(str(job), report.error or "") for job, report in failed])


def _check_start() -> None:
    """Refuse ways to start a run that it does not support."""
    if process_start(os.environ).count == 1:
        with suppress(psutil.Error):
            parent = psutil.Process().parent()
            if parent is not None and (error := lost_processes(parent.cmdline())) is not None:
                raise error


def _check(experiment: Experiment) -> _Checked:
    """An experiment after its preflight; `plan=true` ends here."""
    from hydraprune.runs.preflight import preflight
    from hydraprune.runs.setup import TaskLoader

    load_data = TaskLoader()
    if is_plan_only(experiment.config):
        from hydraprune.sweeps.plan import show_plan

        raise SystemExit(0 if is_follower(os.environ) else show_plan(experiment))
    preflight(experiment, load_data)
    return _Checked(experiment, load_data)


def _keep_refusal(experiment: Experiment | None, config: DictConfig, error: Exception) -> None:
    """Record why a job that an engine started was refused, where its sweep looks for it."""
    folder = os.environ.get(REFUSAL)
    if folder and not is_follower(os.environ):
        from hydraprune.runs.description import record_refusal

        with suppress(OSError):  # the error is in the job's log
            record_refusal(experiment, Path(folder), typed_words(config), error)


def _go_offline_if_unreachable(config: DictConfig) -> None:
    go_offline_if_unreachable([loaded.path for loaded in loaded_paths(config) if loaded.kind != "file"])


@guarded_terminal()
def job(config: DictConfig) -> float | list[float] | None:
    """One job of `train.py`: returns its headline metric, or None for a job of a multirun that has none.

    None, not NaN: a search such as Optuna's goes on after a trial without a value, and ends at NaN.

    Raises:
        Stopped: a signal ended the run, and it is not a job of a launcher's worker process.
    """
    try:
        with signals.job_scope(), _folder_of_the_command(HydraConfig.get()):
            return _job(config)
    except signals.Stopped as error:
        signals.stay_stopped(error)
        return None


@contextmanager
def _folder_of_the_command(hydra_config: HydraConf) -> Iterator[None]:
    """A context in the folder in which the command was typed, to which its relative paths belong.

    With `hydra.job.chdir=true` Hydra has left it.
    """
    before = os.getcwd()
    if hydra_config.job.chdir:
        os.chdir(hydra_config.runtime.cwd)
    try:
        yield
    finally:
        os.chdir(before)


def _job(config: DictConfig) -> float | list[float] | None:
    hydra_config = HydraConfig.get()
    quiet_libraries()
    signals.watch_stop_file()
    if hydra_config.mode == RunMode.MULTIRUN:
        return _multirun_job(config, hydra_config)
    from hydraprune.runs.experiment import build_single_run
    from hydraprune.runs.followers import follow, joined_processes
    from hydraprune.runs.run import execute

    checked, Preflight.checked = Preflight.checked, None
    try:
        checked = checked or _check(build_single_run(with_hydra_node(config, hydra_config)))
        with joined_processes(process_start(os.environ), checked.experiment) as processes:
            if processes.rank:
                follow(checked.experiment, checked.load_data, processes)
                return None
            if os.environ.get(ONLY_DENSE) and checked.experiment.dense is not None:
                report = execute(checked.experiment.dense, checked.load_data)
            else:
                subfolder = checked.subfolder
                keep = partial(_keep_config, config, hydra_config, subfolder)
                report = execute(checked.experiment, checked.load_data, keep)
            processes.hand_out(None)
    except Exception as error:
        leave(error)
    return _headline(report)


def _multirun_job(config: DictConfig, hydra_config: HydraConf) -> float | list[float] | None:
    """A job of a multirun. Errors are logged and recorded, since raising them would end the sweep."""
    from hydraprune.results.report import NAME, read_report
    from hydraprune.runs.description import record_refusal
    from hydraprune.runs.experiment import build_experiment
    from hydraprune.runs.preflight import preflight
    from hydraprune.runs.run import execute
    from hydraprune.runs.setup import TaskLoader

    directory = Path(hydra_config.runtime.output_dir)
    composed = with_hydra_node(config, hydra_config)
    words = typed_words(composed)
    refusal = Path(hydra_config.sweep.dir) / refusal_folder(words)
    experiment, load_data = None, TaskLoader()
    try:
        subfolder = job_subfolder(hydra_config.output_subdir)
        (refusal / NAME).unlink(missing_ok=True)
        experiment = replace(build_experiment(composed), directory=_relative(directory))
        if not experiment.alone:
            _show_only_warnings()
        preflight(experiment, load_data)
    except Exception as error:
        log.error("Refused: %s", explain(error))
        with suppress(OSError):  # the error is in the log
            record_refusal(experiment, refusal, words, error)
        return None
    try:
        report = execute(experiment, load_data, lambda: _keep_config(config, hydra_config, subfolder))
    except Exception as error:
        log.error("Failed: %s", explain(error), exc_info=not isinstance(error, UserError))
        kept = read_report(directory)
        if kept is None or kept.spec.hash != experiment.spec.hash:
            with suppress(OSError):
                record_refusal(experiment, refusal, words, error)
        return None
    return _objectives(report, hydra_config)


def _headline(report: RunReport) -> float | None:
    return report.final.get(report.metric or "")


def _objectives(report: RunReport, hydra_config: HydraConf) -> float | list[float] | None:
    """What a search optimizes: the headline metric; with two directions also the sparsity of the prunable weights."""
    headline = _headline(report)
    directions = OmegaConf.select(hydra_config, "sweeper.direction")
    if not OmegaConf.is_list(directions) or len(directions) != 2 or headline is None or report.sparsity is None:
        return headline
    return [headline, float(report.sparsity["prunable"])]


def _keep_config(config: DictConfig, hydra_config: HydraConf, subfolder: str) -> None:
    try:
        keep_job(config, hydra_config, subfolder)
    except OSError as error:
        raise UserError(
            f"cannot be written ({error.strerror or error})",
            key="hydra.run.dir",
            value=hydra_config.runtime.output_dir,
            cure="fix that, or give another folder",
        ) from error


def _show_only_warnings() -> None:
    """Keep the terminal for a sweep's live view; a run's train.log holds everything."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.WARNING)


def _relative(path: Path) -> Path:
    """`path` relative to the current folder, if it is below."""
    plain = Path(os.path.normpath(path))
    try:
        return plain.relative_to(Path.cwd())
    except ValueError:
        return plain
