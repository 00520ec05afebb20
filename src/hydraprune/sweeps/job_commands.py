"""The commands by which an engine starts the jobs of a sweep."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from hydraprune.config.command_words import of_jobs, quoted
from hydraprune.config.composition import conf_dir, plain
from hydraprune.config.instantiate import make
from hydraprune.config.messages import TRACEBACK
from hydraprune.config.schema import check_arguments
from hydraprune.errors import UserError
from hydraprune.jobs import Engine, JobCommand
from hydraprune.results.plan_file import Plan, Planned
from hydraprune.runs.folders import LOGS, ONLY_DENSE, REFUSAL

# Keys of engines -> their values where there is none.
_WITHOUT_ENGINE = {"at_once": None, "retries": 0, "stop_at_first_failure": False, "submit": False, "processes": 1}


def engine_of(master: DictConfig) -> Engine | None:
    """The engine that a sweep's config names; None: Hydra's launcher runs the jobs.

    Raises:
        UserError: a key does not fit, the engine cannot work here, or keys of engines are given without one.
    """
    values = plain(master)
    node = values.get("engine")
    if node is None:
        for key, usual in _WITHOUT_ENGINE.items():
            if values.get(key, usual) != usual:
                raise UserError("is read by engines", key=key, value=values[key], cure=f"as in engine=here {key}=...")
        return None
    if "BasicLauncher" not in str(master.hydra.launcher.get("_target_")):
        raise UserError("starts the jobs itself", key="engine", cure="leave hydra/launcher out")
    node = OmegaConf.to_container(master.engine, resolve=True)
    check_arguments(node, "engine.", set())  # type: ignore[arg-type]
    engine: Engine = make({"engine": node}, "engine")
    engine.check()
    if values["processes"] < 1:
        raise UserError("must be at least 1", key="processes", value=values["processes"])
    if values.get("submit") and not engine.leaves:
        raise UserError("this engine waits for its jobs", key="submit", value=True, cure="engine=slurm can leave")
    return engine


def job_commands(plan: Plan, left: Sequence[Planned], master: DictConfig, folder: Path) -> list[JobCommand]:
    """The commands of jobs, those of dense runs that they start from first.

    Args:
        left: jobs of the plan.
        master: the config that all jobs share, its `hydra` node included.
        folder: of the sweep.
    """
    place, logs = Path.cwd(), Path(os.path.abspath(folder / LOGS))
    program = [sys.executable, "-m", "hydraprune.cli", "train", *_flags(master)]
    shared = of_jobs(OmegaConf.to_container(master.hydra.overrides.hydra))  # type: ignore[arg-type]
    commands: list[JobCommand] = []

    def command(job: Planned, log: str, name: str, **variables: str) -> JobCommand:
        words = (*program, *shared, *job.words, f"hydra.run.dir={quoted(os.path.abspath(job.directory))}")
        refusal = {} if job.refusal is None else {REFUSAL: os.path.abspath(job.refusal)}
        # This process has Hydra raise its errors; a job prints a traceback where the user asked for one.
        debugging = os.environ.get(TRACEBACK, "0")
        variables = {"HYDRA_FULL_ERROR": debugging, **variables}
        file, processes = logs / f"{log}.log", int(master.processes)
        return JobCommand(name, words, place, file, {**refusal, **variables}, processes=processes)

    of_dense: dict[str, int] = {}
    starters = {job.ancestor: job for job in reversed(left)}
    for ancestor in plan.ancestors:
        if (job := starters.get(ancestor.spec.hash)) is not None:
            of_dense[ancestor.spec.hash] = len(commands)
            commands.append(command(job, ancestor.spec.hash, ancestor.name, **{ONLY_DENSE: "1"}))
    for job in left:
        of_dense.setdefault(job.spec.hash, len(commands))
        commands.append(command(job, job.spec.hash, job.name))
    # A dense run may be a job itself.
    needs = [None] * (len(commands) - len(left)) + [of_dense.get(job.ancestor or "") for job in left]
    return [replace(each, needs=need) for each, need in zip(commands, needs, strict=True)]


def _flags(master: DictConfig) -> list[str]:
    """Hydra's flags for the configs that this command was started with."""
    flags = []
    for source in master.hydra.runtime.config_sources:
        if source.provider == "main" and source.path and Path(source.path).resolve() != conf_dir().resolve():
            flags += ["--config-path", str(source.path)]
        if source.provider == "command-line":
            flags += ["--config-dir", str(source.path)]
    if (name := master.hydra.job.config_name) not in (None, "config"):
        flags += ["--config-name", str(name)]
    return flags
