"""Between the command line and a run: checks before Hydra makes a folder, and the job itself.

Light to import: torch and Hugging Face are loaded when a run is really meant.
"""

from __future__ import annotations

import logging
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hydraprune.config.archive import clean, keep_job
from hydraprune.config.composition import loaded_paths
from hydraprune.config.messages import leave, one_line
from hydraprune.errors import UserError
from hydraprune.results.report import REFUSED
from hydraprune.runs.folders import is_planned, refusals, register
from hydraprune.utils import signals as stopping
from hydraprune.utils.hub_access import go_offline_if_unreachable, quiet_libraries
from hydraprune.utils.redaction import guard_logs, guarded_terminal
from hydraprune.utils.system import let_threads_sleep

if TYPE_CHECKING:
    from hydraprune.runs.experiment import Request

log = logging.getLogger(__name__)


register()
guard_logs()
# Here, since it must come before torch.
let_threads_sleep()


class Preflight(Callback):  # type: ignore[misc]
    """Refuses a run before Hydra makes its folder, and ends a sweep with what failed in it.

    Leaves by SystemExit: Hydra swallows other exceptions here.
    """

    def __init__(self) -> None:
        self.started = 0.0

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        try:
            _refuse_launcher()
            go_offline_if_unreachable(_hub_ids(config))
            quiet_libraries()
            from hydraprune.runs.request import request_of
            from hydraprune.runs.run import preflight  # only now: the libraries read the environment once

            request = request_of(config)
            if config.plan:
                _show_plan(request)
            preflight(request)
        except Exception as error:
            leave(error)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            _refuse_launcher()
            go_offline_if_unreachable(_hub_ids(config))
            from hydraprune.runs.preflight import check_sweep

            check_sweep(config.sweep)
            if config.plan and not is_planned(config):
                raise UserError(
                    f"plan={config.plan}: {config.hydra.sweeper._target_} makes its jobs up as it goes; "
                    f"hydra/sweeper=hydraprune knows them beforehand"
                )
        except UserError as error:
            leave(error)
        # A file's time may lag behind the clock by a tick.
        self.started = time.time() - 0.05

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """A job that fails returns NaN and leaves a report; this is where a sweep of another sweeper says so."""
        if is_planned(config):
            return
        from hydraprune.results.report import NAME, read_report
        from hydraprune.sweeps.sweep import end_sweep
        from hydraprune.utils.files import folders_with

        folder = Path(config.hydra.sweep.dir)
        clean(folder / "multirun.yaml")
        recent = [p for p in folders_with(NAME, folder) if (p / NAME).stat().st_mtime >= self.started]
        failed = [(job, report) for job in sorted(recent) if (report := read_report(job)) and report.status == "failed"]
        end_sweep(folder, [(str(job), report.error or "") for job, report in failed])


def _show_plan(request: Request) -> NoReturn:
    """`plan=true` of a single run."""
    from hydraprune.sweeps import plan as planning
    from hydraprune.sweeps.plan import Wanted

    folder = request.directory.parent
    plan = planning.draw(request.overrides, [Wanted((), request, None, folder / REFUSED)], 1, elsewhere=False)
    print(planning.table(plan, planning.evidence([Path(request.config.run.root)]), folder, each=True))
    raise SystemExit(2 if any(job.refused for job in plan.jobs) else 0)


def _hub_ids(config: DictConfig) -> list[str]:
    """Hub ids and paths that a run loads."""
    return [loaded.path for loaded in loaded_paths(config) if loaded.kind != "file"]


def _refuse_launcher() -> None:
    """What `accelerate launch` may say and a run does not follow."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise UserError(
            f"accelerate launch --num_processes {processes}: a run is one process; start it with --num_processes 1, "
            f"and several runs with -m"
        )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no":
        raise UserError(
            f"accelerate launch --mixed_precision {precision}: precision is part of a run's config; say "
            f"training.precision=bf16 instead"
        )


@guarded_terminal()
def job(config: DictConfig) -> float | None:
    """One job of `train.py`: returns its headline metric, or NaN for a failed job of a multirun.

    Raises:
        Stopped: it was asked to stop, and is no job of a launcher's worker.
    """
    try:
        with stopping.at_work():
            return _job(config)
    except stopping.Stopped as error:
        stopping.stay_stopped(error)
        return math.nan


def _job(config: DictConfig) -> float | None:
    from hydraprune.config.composition import typed_words
    from hydraprune.results.report import read_report
    from hydraprune.runs.description import record_refusal
    from hydraprune.runs.request import request_of
    from hydraprune.runs.run import execute, preflight

    hydra_config = HydraConfig.get()
    directory = Path(hydra_config.runtime.output_dir)
    quiet_libraries()
    composed = OmegaConf.create({**config, "hydra": hydra_config})
    words = typed_words(composed)
    refusal = Path(hydra_config.sweep.dir) / refusals(words)
    request = None
    try:
        _keep(config, hydra_config)
        if hydra_config.mode == RunMode.MULTIRUN:
            (refusal / "report.json").unlink(missing_ok=True)
        request = request_of(composed, _relative(directory))
        if not request.alone:
            _only_warnings()
        if hydra_config.mode == RunMode.MULTIRUN:
            preflight(request)
    except Exception as error:
        if hydra_config.mode != RunMode.MULTIRUN:
            leave(error)
        log.error("Refused: %s", one_line(error))
        with suppress(OSError):  # it is said above
            record_refusal(request, refusal, words, error)
        return math.nan
    try:
        report = execute(request)
    except Exception as error:
        # A job that raised would end the sweep, or hide the failures after it.
        if hydra_config.mode != RunMode.MULTIRUN:
            leave(error)
        log.error("Failed: %s", one_line(error), exc_info=not isinstance(error, UserError))
        report_left = read_report(directory)
        if report_left is None or report_left.spec.hash != request.hash:
            with suppress(OSError):
                record_refusal(request, refusal, words, error)
        return math.nan
    value = report.final.get(report.metric or "")
    return math.nan if value is None else value


def _keep(config: DictConfig, hydra_config: HydraConf) -> None:
    try:
        keep_job(config, hydra_config)
    except OSError as error:
        raise UserError(
            f"hydra.run.dir={hydra_config.runtime.output_dir}: cannot be written ({error.strerror or error}); mend "
            f"that, or give another folder"
        ) from error


def _only_warnings() -> None:
    """On the terminal, which the view of a sweep shares; a run's train.log holds all."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.WARNING)


def _relative(path: Path) -> str:
    """`path` as a person would write it: from here, if it is below."""
    plain = Path(os.path.normpath(path))
    try:
        return str(plain.relative_to(Path.cwd()))
    except ValueError:
        return str(plain)
