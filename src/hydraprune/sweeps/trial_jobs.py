"""The jobs of a trial, on the engine of a study: its dense run if that is missing, its own, and its bench."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from hydraprune.jobs import Engine, JobCommand
from hydraprune.results.plan_file import Plan, Planned
from hydraprune.runs.folders import LOGS
from hydraprune.search.settings import Latency
from hydraprune.sweeps.job_commands import job_commands
from hydraprune.sweeps.trial_results import latency_of
from hydraprune.utils import signals
from hydraprune.utils.signals import STOP_FILE

# Subfolder of a run's.
BENCH = "bench"


class TrialJobs:
    """Runs the jobs of trials, several at a time in threads of their own.

    Args:
        engine: that takes one job from each thread.
        master: the config that all trials share, its `hydra` node included.
        folder: of the sweep.
        latency: how the model of a finished trial is measured; None: it is not.
    """

    def __init__(self, engine: Engine, master: DictConfig, folder: Path, latency: Latency | None) -> None:
        self._engine, self._master, self._folder, self._latency = engine, master, folder, latency
        # One dense run, and one bench, at a time.
        self._dense_lock, self._bench_lock = threading.Lock(), threading.Lock()
        self._failed_dense: set[str] = set()

    def run(self, trial: Planned, dense: Planned | None, stop: Path) -> None:
        """Run what a trial needs and what is not finished; returns when it has ended.

        Args:
            dense: the dense run that it starts from, if that is missing.
            stop: the file that stops it.
        """
        commands = self._commands(trial, dense, stop)
        if len(commands) > 1:
            with self._dense_lock:
                if not self._has_dense(dense, commands[0]):
                    return
        if trial.finished() is None:
            self._engine.run([replace(commands[-1], needs=None)], self._folder)
        if self._latency is not None and trial.finished() is not None:
            with self._bench_lock:
                if latency_of(trial, BENCH) is None:
                    self._engine.run([self._bench(trial, commands[-1], self._latency)], self._folder)

    def _commands(self, trial: Planned, dense: Planned | None, stop: Path) -> list[JobCommand]:
        plan = Plan((), 1, (trial,), () if dense is None else (dense,))
        *before, command = job_commands(plan, [trial], self._master, self._folder)
        return [*before, replace(command, environment={**command.environment, STOP_FILE: str(stop)})]

    def _has_dense(self, dense: Planned | None, command: JobCommand) -> bool:
        """Train a dense run that is missing; False if it cannot be had."""
        if dense is None or dense.finished() is not None:
            return True
        if dense.spec.hash not in self._failed_dense and not signals.is_stopping():
            self._engine.run([command], self._folder)
        if dense.finished() is None and not signals.is_stopping():
            self._failed_dense.add(dense.spec.hash)
        return dense.finished() is not None

    def _bench(self, trial: Planned, command: JobCommand, latency: Latency) -> JobCommand:
        directory = os.path.abspath(trial.directory)
        words = latency.words(directory, os.path.join(directory, BENCH))
        name = f"{trial.spec.hash}-bench"
        log = Path(os.path.abspath(self._folder / LOGS / f"{name}.log"))
        return JobCommand(name, (sys.executable, "-m", "hydraprune.cli", *words), command.folder, log)
