"""The directory of a run: its report if it is finished, the check that it may be used, and the stamp in it."""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.results.curves import NAME as METRICS
from hydraprune.results.report import NAME, RunReport, finished_run, read_report
from hydraprune.runs.experiment import Experiment
from hydraprune.runs.inputs import check_inputs
from hydraprune.utils.atomic import remove_leftovers
from hydraprune.utils.files import PROBE, check_place
from hydraprune.utils.weights_files import missing_weights

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
# What is written by `utils.atomic` in a run's directory and in its folder of Hydra's files.
_WRITTEN = {"config.yaml", "hydra.yaml", "overrides.yaml", NAME, METRICS, "model", "README.md"}
# What Hydra, the lock and the log leave in a directory before the run itself writes there.
_BEFORE_A_RUN = {".hydra", ".lock", "train.log"}


def stamp(experiment: Experiment) -> str:
    """The first line of the config.yaml in a run's directory."""
    return f"# run {experiment.spec.hash}\n"


def finished(experiment: Experiment) -> RunReport | None:
    """The report of a run if it is finished and its model is whole.

    Raises:
        UserError: it was made from other contents of a data file or model folder than are there now.
    """
    report = finished_run(experiment.directory, experiment.spec.hash)
    if report is not None:
        check_inputs(experiment, report)
    return report


def check_directory(experiment: Experiment) -> None:
    """Refuse a directory that holds anything but this run.

    Raises:
        UserError: naming what is there; or the run was begun with other contents of a data file or model folder.
    """
    directory = experiment.directory
    key = "run.root" if directory == experiment.default_directory else "hydra.run.dir"
    check_place(directory, key)
    check_links(directory, key)
    if not directory.is_dir() or all(_is_there_before_a_run(path) for path in directory.iterdir()):
        return
    config = directory / "config.yaml"
    if config.is_file() and config.read_text(encoding="utf-8").startswith(stamp(experiment)):
        report = read_report(directory)
        if report is not None and is_begun(directory):
            check_inputs(experiment, report)
        return
    report = read_report(directory)
    spec = None if report is None else report.spec
    what = "other files" if spec is None else f"another run ({spec.task}, {spec.model}, {spec.pattern})"
    raise UserError(
        f"holds {what}", key=key, value=directory, cure="give an empty folder, or one that does not exist yet"
    )


def is_begun(directory: Path) -> bool:
    """Whether a run left a checkpoint from which it would be resumed."""
    return any((directory / CHECKPOINTS).glob("*"))


def clean_directory(experiment: Experiment) -> None:
    """Remove what killed processes left in a run's directory, whose lock is held, and keep what is about to be lost.

    A finished run whose model is gone or incomplete is made again: its model, in which there may be files of the
    user's, and its report are kept under other names.
    """
    directory = experiment.directory
    report, model = read_report(directory), directory / "model"
    for folder in (directory, model, *(path for path in directory.iterdir() if _is_hydra_output(path))):
        remove_leftovers(folder, _WRITTEN)
    if report is None or not report.finished or report.spec.hash != experiment.spec.hash:
        return
    if (lost := missing_weights(model)) is None:
        return
    log.warning("%s: model/%s is missing or incomplete: the finished run is made again", directory, lost)
    names = ((f"report-before-{n}.json", f"model-before-{n}") for n in itertools.count(1))
    kept = next(pair for pair in names if not any(os.path.lexists(directory / name) for name in pair))
    shutil.copyfile(directory / NAME, directory / kept[0])
    if model.is_dir() and any(model.iterdir()):
        model.rename(directory / kept[1])
    log.warning("What was there is kept as %s and %s", *kept)


def check_links(directory: Path, key: str) -> None:
    """Refuse links in a run's directory: what a run writes, cuts and removes there must be its own.

    The directory itself may be reached by links.

    Raises:
        UserError: naming the link.
    """
    for name in (*_BEFORE_A_RUN, "config.yaml", NAME, METRICS, CHECKPOINTS, "model"):
        if (directory / name).is_symlink():
            raise UserError(
                f"{name} in it is a link", key=key, value=directory, cure="give an empty folder, or remove the link"
            )


def _is_there_before_a_run(path: Path) -> bool:
    # A half-written stamp does not count, nor does the probe of another process that checks this directory.
    half_written = path.name.startswith(".config.yaml.") and path.name.endswith(".tmp")
    return path.name in _BEFORE_A_RUN or half_written or path.name.startswith(PROBE) or _is_hydra_output(path)


def _is_hydra_output(path: Path) -> bool:
    """Whether this is the folder of Hydra's own files, which `hydra.output_subdir` names.

    It may be incomplete: the process that wrote it was killed.
    """
    with suppress(OSError):
        return not path.is_symlink() and all(_HYDRAS_FILE.fullmatch(file.name) for file in path.iterdir())
    return False


_HYDRAS_FILE = re.compile(r"(config|hydra|overrides)\.yaml|\.(config|hydra|overrides)\.yaml\.\d+\.tmp")
