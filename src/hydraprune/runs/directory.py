"""The directory of a run: its report if it is finished, the check that it may be used, and the stamp in it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.results.curves import NAME as METRICS
from hydraprune.results.report import NAME, RunReport, finished_run, read_report
from hydraprune.runs.experiment import Experiment
from hydraprune.runs.inputs import check_inputs
from hydraprune.utils.files import PROBE, check_place

CHECKPOINTS = "checkpoints"
# What Hydra, the lock and the log leave in a directory before the run itself writes there.
_BEFORE_A_RUN = {".hydra", ".lock", "train.log"}


def stamp(experiment: Experiment) -> str:
    """The first line of the config.yaml in a run's directory."""
    return f"# run {experiment.spec.hash}\n"


def finished(experiment: Experiment) -> RunReport | None:
    """The report of a run if it is finished and its model is there.

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
    """Whether this is the folder of Hydra's own files, which `hydra.output_subdir` names."""
    with suppress(OSError):
        return {file.name for file in path.iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    return False
