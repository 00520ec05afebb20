"""Execution of a sweep: plan, launch of the jobs that are not finished, and results matrix."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hydraprune.config.archive import as_yaml
from hydraprune.config.command_words import check_engine_words, of_jobs
from hydraprune.config.composition import is_plan_only, typed_words
from hydraprune.config.messages import explain
from hydraprune.errors import UserError, single_line
from hydraprune.runs.folders import SWEEP_SUBDIR, refusal_folder, sweep_subdir
from hydraprune.utils import signals
from hydraprune.utils.atomic import remove_leftovers
from hydraprune.utils.files import write_text
from hydraprune.utils.hub_access import quiet_libraries
from hydraprune.utils.launchers import workers_of

if TYPE_CHECKING:
    from hydraprune.jobs import Engine, JobCommand
    from hydraprune.results.plan_file import Plan, Planned
    from hydraprune.runs.experiment import DenseExperiments
    from hydraprune.sweeps.plan import Job

log = logging.getLogger(__name__)


def sweep(
    words: Sequence[Sequence[str]],
    master: DictConfig,
    compose: Callable[[list[str]], DictConfig],
    launch: Callable[[list[list[str]]], None],
) -> None:
    """Run the jobs of a sweep that are not finished, and write the results matrix.

    Args:
        words: the overrides of every job.
        master: the config that all jobs share, its `hydra` node included.
        compose: a job's config from its overrides.
        launch: runs jobs, given their overrides, and returns when all have ended.

    Raises:
        SystemExit: 1 when a job failed; with `plan=true`, 2 when one would be refused.
    """
    quiet_libraries()
    # Imported here: the libraries read the environment once.
    from hydraprune.results.collect import FILES  # before the jobs: hydraprune may be upgraded meanwhile
    from hydraprune.results.plan_file import NAME as PLAN
    from hydraprune.results.plan_file import with_earlier, write_plan
    from hydraprune.runs.description import record_refusal
    from hydraprune.runs.experiment import DenseExperiments
    from hydraprune.sweeps import plan as planning
    from hydraprune.sweeps.job_commands import engine_of, job_commands
    from hydraprune.sweeps.job_reports import JobReports
    from hydraprune.sweeps.live import View
    from hydraprune.sweeps.progress import progress

    folder = Path(master.hydra.sweep.dir)
    launcher = OmegaConf.to_container(master.hydra.launcher)
    check_engine_words(words)
    engine = engine_of(master)
    if engine is None:
        workers, elsewhere = workers_of(launcher, os.cpu_count() or 1)
    else:
        workers, elsewhere = engine.workers, engine.elsewhere
        words = [of_jobs(job) for job in words]
    command = typed_words(master)
    dense_experiments = DenseExperiments(alone=False)
    jobs = [job_of(job, number, folder, compose, dense_experiments) for number, job in enumerate(words)]
    # Where only the cluster knows, all run at a time if it has room.
    plan = planning.make_plan(command, jobs, len(jobs) if workers is None else workers, elsewhere)
    evidence = planning.finished_runs([folder, Path(master.run.root)])
    only_planned = is_plan_only(master)
    print(planning.table(plan, evidence, folder, each=only_planned), flush=True)
    if only_planned:
        raise SystemExit(2 if any(job.refused for job in plan.jobs) else 0)
    by_words = {job.words: job for job in jobs}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, ("multirun.yaml", PLAN, *FILES), live=True)
        write_text(folder / "multirun.yaml", as_yaml(master))
        write_plan(with_earlier(plan, earlier_plan(folder)), folder)
        for run in plan.jobs:
            if run.refused is not None and run.refusal is not None:
                record_refusal(by_words[run.words].experiment, run.refusal, run.words, UserError(run.refused))
    except OSError as error:
        where = error.filename or folder
        raise UserError(
            f"{where} cannot be written ({error.strerror or error})",
            key="hydra.sweep.dir",
            value=folder,
            cure="fix that, or give another folder",
        ) from None
    left = [run for run in plan.jobs if run.refused is None and run.finished() is None]
    reports = JobReports()
    since = time.time() - 0.05  # a file's time may lag behind the clock by a tick
    if left and engine is not None and engine.leaves:
        engine.run(job_commands(plan, left, master, folder), folder)
        return
    if left:
        with View(lambda: progress(plan, since, evidence, reports)):
            if engine is not None:
                with signals.deferred():
                    _give_to(engine, job_commands(plan, left, master, folder), folder)
            else:
                _quiet_launchers()
                # Signals are forwarded to worker processes on this machine; a job in this process stops as a run does.
                with nullcontext() if elsewhere or workers == 1 else signals.forwarded():
                    _launch(launch, [list(run.words) for run in left])
    if engine is not None:
        explain_silent(plan, left, by_words, folder, since)
    end_sweep(folder, [(str(run.directory), why) for run in plan.jobs if (why := run.failure()) is not None])


def _launch(launch: Callable[[list[list[str]]], None], words: list[list[str]]) -> None:
    try:
        launch(words)
    except Exception as error:
        # A killed worker ends its pool; jobs that it did not finish are listed at the end.
        log.error("The launcher gave up: %s", explain(error))


def _give_to(engine: Engine, commands: Sequence[JobCommand], folder: Path) -> None:
    try:
        engine.run(commands, folder)
    except UserError:
        raise
    except Exception as error:
        log.error("The engine gave up: %s", explain(error))


def explain_silent(
    plan: Plan, left: Sequence[Planned], jobs: Mapping[tuple[str, ...], Job], folder: Path, since: float
) -> None:
    """Record why jobs have no report: what their processes printed last, or the failure of their dense run."""
    from hydraprune.runs.description import record_refusal
    from hydraprune.runs.folders import LOGS

    dense = {run.spec.hash: run for run in (*plan.ancestors, *plan.jobs)}
    for run in left:
        if run.refusal is None or run.report() is not None:
            continue
        file, needed = folder / LOGS / f"{run.spec.hash}.log", dense.get(run.ancestor or "")
        if file.is_file() and file.stat().st_mtime >= since:
            lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            why = f"{lines[-1][:300] if lines else 'its process printed nothing'} (see {file})"
        elif needed is not None and (failure := needed.failure()) is not None:
            why = f"its dense run failed: {failure}"
        else:
            continue
        with suppress(OSError):
            record_refusal(jobs[run.words].experiment, run.refusal, run.words, UserError(why))


def earlier_plan(folder: Path) -> Plan | None:
    """The plan of an earlier command in a sweep's folder; logged where it is damaged."""
    from hydraprune.results.plan_file import load_plan

    try:
        return load_plan(folder)
    except UserError as error:
        log.warning("%s: %s; it is written anew, without the jobs of earlier commands", error.key, error.reason)
        return None


def job_of(
    words: Sequence[str],
    number: int,
    folder: Path,
    compose: Callable[[list[str]], DictConfig],
    dense_experiments: DenseExperiments,
) -> Job:
    """A job of a sweep before its preflight.

    Args:
        words: its overrides.
        number: of the job.
        folder: of the sweep.
        compose: a job's config from its overrides.
        dense_experiments: shared by the jobs.
    """
    from hydraprune.runs.experiment import build_experiment
    from hydraprune.sweeps.plan import Job

    # The overrides that the job's report will have: without Hydra's own.
    typed = [word for word in words if not word.lstrip("+~").startswith("hydra")]
    try:
        config = compose(list(words))
        typed = typed_words(config)
        experiment = build_experiment(config, dense_experiments)
        experiment = replace(experiment, directory=_directory(config, number, folder, experiment.identity.folder))
        return Job(tuple(words), experiment, None, folder / refusal_folder(typed))
    except (UserError, HydraException, OmegaConfBaseException) as error:
        return Job(tuple(words), None, explain(error), folder / refusal_folder(typed))


def _directory(config: DictConfig, number: int, folder: Path, run_folder: str) -> Path:
    """The job's folder.

    Raises:
        UserError: it depends on the job's number, which changes when the same command runs the remaining jobs.
    """
    if OmegaConf.to_container(config.hydra.sweep)["subdir"] == SWEEP_SUBDIR:  # type: ignore[index,call-overload]
        return Path(os.path.normpath(folder / sweep_subdir(config, run_folder)))
    places = set()
    for other in (number, number + 1):
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = other, str(other)
        places.add(str(config.hydra.sweep.subdir))
    if len(places) > 1:
        raise UserError(
            "depends on the job's number, and the same command would not find its jobs again",
            key="hydra.sweep.subdir",
            value=config.hydra.sweep.subdir,
            cure="leave it out, or derive it from the job's config",
        )
    return Path(os.path.normpath(folder / places.pop()))


def _quiet_launchers() -> None:
    """Silence the launchers' lists of jobs and overrides: the live view shows the jobs."""
    for name in ("hydra._internal.core_plugins.basic_launcher", "hydra_plugins.hydra_joblib_launcher._core"):
        logging.getLogger(name).setLevel(logging.WARNING)


def end_sweep(folder: Path, failures: Sequence[tuple[str, str]]) -> None:
    """Print and write a sweep's results, and list its failures.

    Args:
        failures: (directory, why).

    Raises:
        SystemExit: 1 when a job failed, or the table cannot be written.
    """
    from hydraprune.results.collect import FILES, gather, write_matrix

    found = gather([folder])
    print(f"\n{found.markdown()}")
    unwritten = None
    try:
        write_matrix(found, folder)
    except UserError as error:
        unwritten = error
    else:
        print(f"Kept in {folder / FILES[0]}, with .csv and .json beside it")
        print(f"To see it: hydraprune dashboard {folder}", flush=True)
    for directory, why in failures:
        print(f"hydraprune: failed: {directory}: {why}", file=sys.stderr)
    if unwritten is not None:
        print(f"hydraprune: error: {single_line(unwritten)}", file=sys.stderr)
    if failures or unwritten:
        raise SystemExit(1)
