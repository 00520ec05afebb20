"""A study: Optuna asks for trials, an engine runs them as jobs of a sweep, and bad ones are stopped early."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from hydraprune.config.archive import as_yaml
from hydraprune.config.command_words import check_varied_keys, of_jobs
from hydraprune.config.composition import is_plan_only, typed_words
from hydraprune.config.messages import explain
from hydraprune.config.schema import override_key
from hydraprune.errors import UserError
from hydraprune.jobs import Engine
from hydraprune.results.plan_file import NAME as PLAN
from hydraprune.results.plan_file import Plan, Planned, with_earlier, write_plan
from hydraprune.results.study_record import write_study
from hydraprune.runs.description import record_refusal
from hydraprune.runs.folders import LOGS
from hydraprune.search.settings import LATENCY, SCORE, SPARSITY, OptunaStudy
from hydraprune.search.space import Space, space
from hydraprune.sweeps.plan import CheckedCells, finished_runs
from hydraprune.sweeps.study_summary import objectives_of, print_summary
from hydraprune.sweeps.sweep import earlier_plan, end_sweep, explain_silent, job_of
from hydraprune.sweeps.tail import read_latest
from hydraprune.sweeps.trial_jobs import BENCH, TrialJobs
from hydraprune.sweeps.trial_results import epochs_of, latency_of, metric_of, target_epoch
from hydraprune.utils import signals
from hydraprune.utils.files import write_text
from hydraprune.utils.hub_access import quiet_libraries

if TYPE_CHECKING:
    from hydraprune.search.trials import Asked, Trials
    from hydraprune.sweeps.plan import Job

# Seconds between two looks at the trials that run.
_PERIOD = 0.5
# Subfolder of a sweep's: files that stop trials.
_STOPS = "stops"
_LOCK = ".study.lock"


@dataclass
class _Running:
    """A trial whose job runs.

    Args:
        stop: the file that stops it.
        thread: that waits for it.
        error: that the engine raised.
    """

    asked: Asked
    run: Planned
    stop: Path
    thread: threading.Thread
    error: list[Exception]


def run_study(overrides: Sequence[Override], master: DictConfig, compose: Callable[[list[str]], DictConfig]) -> None:
    """Run the trials of a study until there are as many as it is to have, and write its table.

    Args:
        overrides: of the command; those with several values are searched.
        master: the config that all trials share, its `hydra` node included.
        compose: a trial's config from its overrides.

    Raises:
        UserError: the study, its engine or its search space does not fit.
        SystemExit: 1 when a trial failed.
    """
    from hydraprune.sweeps.study_settings import engine_of_study, settings_of

    settings, engine, at_once = settings_of(master), *engine_of_study(master)
    quiet_libraries()
    searched = space(overrides)
    check_varied_keys(map(override_key, searched.searched))
    searched = replace(searched, shared=tuple(of_jobs(searched.shared)))
    folder = Path(master.hydra.sweep.dir)
    study = _StudySweep(settings, searched, engine, at_once, master, compose, folder)
    if is_plan_only(master):
        print("\n".join(study.described()), flush=True)
        raise SystemExit(0)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError("another process runs this study", key="sweep", value=folder, cure="give another") from None
    try:
        write_text(folder / "multirun.yaml", as_yaml(master))
        end_sweep(folder, study.run())
    finally:
        lock.release()


class _StudySweep:
    """One command's part of a study."""

    def __init__(
        self,
        settings: OptunaStudy,
        searched: Space,
        engine: Engine,
        at_once: int,
        master: DictConfig,
        compose: Callable[[list[str]], DictConfig],
        folder: Path,
    ) -> None:
        from hydraprune.runs.experiment import DenseExperiments

        self._settings, self._space, self._engine, self._at_once = settings, searched, engine, at_once
        self._master, self._compose, self._folder = master, compose, folder
        self._dense_experiments = DenseExperiments(alone=False)
        self._checked = CheckedCells(engine.elsewhere)
        self._jobs: dict[tuple[str, ...], Job] = {}
        self._plan = Plan(tuple(typed_words(master)), at_once, (), ())
        self._left = 0  # trials to ask for
        self._trials: Trials
        self._failures: list[tuple[str, str]] = []  # (folder, why)
        latency = settings.latency if LATENCY in settings.names else None
        self._trial_jobs = TrialJobs(engine, master, folder, latency)
        self._earlier = earlier_plan(folder)
        self._since = time.time() - 0.05  # a file's time may lag behind the clock by a tick

    def described(self) -> list[str]:
        """The study in a few lines."""
        settings, names = self._settings, ", ".join(self._settings.names)
        lines = [f"study  {settings.name}: {settings.trials} trials of {names}, {self._at_once} at a time"]
        lines += [f"search {key}: {values}" for key, values in self._space.described.items()]
        return lines

    def run(self) -> list[tuple[str, str]]:
        """Run trials until there are enough, or a signal stops the study.

        Returns:
            (folder or words, why) of those that failed.
        """
        from hydraprune.search.trials import Trials
        from hydraprune.sweeps.job_reports import JobReports
        from hydraprune.sweeps.live import View
        from hydraprune.sweeps.progress import Progress, progress, with_following

        print("\n".join(self.described()), flush=True)
        first = self._first_job()
        if not first.experiment.config["task"].get("validation_share", 0):  # type: ignore[union-attr]
            print(
                "note   the trials are compared on the evaluation data, so the best score flatters: "
                "task.validation_share=0.2 compares them on a fifth of the training split",
                flush=True,
            )
        objectives = objectives_of(self._settings.names, *metric_of(first))
        self._trials = trials = Trials(self._settings, self._space, objectives, self._folder)
        evidence, reports = finished_runs([self._folder, Path(self._master.run.root)]), JobReports()

        def look() -> Progress:
            return with_following(progress(self._plan, self._since, evidence, reports), self._left, self._at_once)

        with signals.deferred(), self._engine.opened(), View(look):
            self._drive()
        record = trials.record()
        write_study(record, self._folder)
        print_summary(record, with_earlier(self._plan, self._earlier).jobs, self._folder)
        return self._failures

    def _first_job(self) -> Job:
        """The job of the first value of everything: whether the words fit at all is known before a trial is asked."""
        job = self._job(self._space.first)
        if job.experiment is None:
            raise UserError(str(job.mistake))
        return job

    def _job(self, words: Sequence[str]) -> Job:
        return job_of(list(words), 0, self._folder, self._compose, self._dense_experiments)

    def _drive(self) -> None:
        try:
            self._run_trials()
        except BaseException:
            # Their threads end with this process, the jobs would not.
            signals.terminate_children()
            raise

    def _run_trials(self) -> None:
        running: list[_Running] = []
        # Each command asks for no more than it misses, so that trials which fail at once do not go on for ever.
        self._left = self._settings.trials - self._trials.settled
        while running or (self._left > 0 and not signals.is_stopping()):
            while self._left > 0 and len(running) < self._at_once and not signals.is_stopping():
                self._left -= 1
                started = self._start()
                running += [] if started is None else [started]
                if self._failures and self._master.stop_at_first_failure:
                    self._left = 0
            for one in running:
                if one.thread.is_alive():
                    self._compare(one)
            for one in [one for one in running if not one.thread.is_alive()]:
                running.remove(one)
                self._settle(one)
                if self._failures and self._master.stop_at_first_failure:
                    self._left = 0
            time.sleep(_PERIOD if running else 0)

    def _start(self) -> _Running | None:
        """Ask for a trial and start its job; None if it is settled already."""
        asked = self._trials.ask()
        job = self._job(asked.words)
        run, dense = self._checked.plan(job)
        self._jobs[run.words] = job
        self._trials.place(asked, run.spec.hash, os.path.relpath(run.directory, self._folder), target_epoch(job, run))
        self._add(run, dense)
        if run.refused is not None:
            if run.refusal is not None:
                record_refusal(job.experiment, run.refusal, run.words, UserError(run.refused))
            self._fail(asked, run, run.refused)
            return None
        stop = Path(os.path.abspath(self._folder / _STOPS / run.spec.hash))
        stop.unlink(missing_ok=True)
        error: list[Exception] = []
        thread = threading.Thread(target=self._work, args=(run, dense, stop, error), daemon=True)
        one = _Running(asked, run, stop, thread, error)
        thread.start()
        write_study(self._trials.record(), self._folder)
        return one

    def _add(self, run: Planned, dense: Planned | None) -> None:
        """Add a trial to the plan that `hydraprune watch` and the table read."""
        known = {job.directory for job in self._plan.jobs}
        ancestors = {job.spec.hash: job for job in self._plan.ancestors}
        if dense is not None:
            ancestors.setdefault(dense.spec.hash, dense)
        jobs = self._plan.jobs if run.directory in known else (*self._plan.jobs, run)
        self._plan = replace(self._plan, jobs=jobs, ancestors=tuple(ancestors.values()))
        write_plan(with_earlier(self._plan, self._earlier), self._folder)
        # Readers take the time of this file for the start of the sweep.
        os.utime(self._folder / PLAN, (self._since, self._since))

    def _work(self, run: Planned, dense: Planned | None, stop: Path, error: list[Exception]) -> None:
        """Run the jobs of a trial, in a thread of its own."""
        try:
            self._trial_jobs.run(run, dense, stop)
        except Exception as raised:
            error.append(raised)

    def _compare(self, one: _Running) -> None:
        """Tell Optuna the scores of a trial so far, and stop it if it is hopeless."""
        if one.stop.exists() or not (job := self._jobs[one.run.words]).experiment:
            return
        latest = read_latest(one.run.directory)
        score = latest.scores.get(metric_of(job)[0])
        if latest.epoch is None or score is None or latest.step >= (one.run.steps or 0):
            return
        if self._trials.is_hopeless(one.asked, {latest.epoch: score}):
            one.stop.parent.mkdir(parents=True, exist_ok=True)
            one.stop.touch()

    def _settle(self, one: _Running) -> None:
        trials, objectives = self._trials, self._trials.objectives
        report = one.run.finished()
        if report is not None:
            found = {
                SCORE: report.final.get(report.metric or ""),
                SPARSITY: (report.sparsity or {}).get("prunable"),
                LATENCY: latency_of(one.run, BENCH) if LATENCY in self._settings.names else None,
            }
            values = [found[each.name] for each in objectives]
            trials.report(one.asked, epochs_of(one.run, report.metric or ""))  # for those that follow
            missing = [each.name for each, value in zip(objectives, values, strict=True) if value is None]
            if not missing:
                trials.complete(one.asked, [float(value) for value in values if value is not None])
            elif not signals.is_stopping():
                why = f"it has no {' and no '.join(missing)}" + f" (see {LOGS}/{one.run.spec.hash}-bench.log)" * (
                    LATENCY in missing
                )
                self._fail(one.asked, one.run, why)
        elif (ended := one.run.report()) is not None and ended.stopped and one.stop.exists():
            trials.stop(one.asked)
        elif not signals.is_stopping():
            explain_silent(self._plan, [one.run], self._jobs, self._folder, self._since)
            why = explain(one.error[0]) if one.error else one.run.failure() or "it failed"
            self._fail(one.asked, one.run, why)
        write_study(self._trials.record(), self._folder)

    def _fail(self, asked: Asked, run: Planned, why: str) -> None:
        self._trials.fail(asked, why)
        self._failures.append((str(run.directory), why))
