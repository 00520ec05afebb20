"""Digests of the data files and model folders that a run reads, compared whenever the run is started again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.results.report import RunReport
from hydraprune.runs.experiment import Experiment
from hydraprune.utils.digests import folder_digest, weights_digest
from hydraprune.utils.hub_access import at_home, is_local

# Of a model's folder: its config, weights and tokenizer. Not its card, logs or checkpoints of a trainer.
_MODEL_FILES = (
    *("config.json", "*.safetensors", "pytorch_model*.bin", "*.index.json"),
    *("*token*.json", "vocab.*", "merges.txt", "*.model"),
)


def input_digests(experiment: Experiment) -> dict[str, str]:
    """`key=path` -> SHA-256 of each data file and model folder that a run reads from this machine.

    Hub ids are left out, since their `revision` names the contents; so is what is not there any more.
    """
    config = experiment.config
    found: dict[str, str] = {}
    with suppress(OSError, UserError):
        digests = getattr(experiment.components.task, "digests", dict)
        found |= {f"{_data_key(config['task'], path)}={path}": digest for path, digest in digests().items()}
    named = {"model.path": config["model"].get("path"), "dense.source": experiment.dense_source}
    if experiment.components.distiller.needs_teacher:
        named["distill.teacher"] = experiment.components.distiller.teacher
    for key, path in named.items():
        if isinstance(path, str) and is_local(path) and (folder := Path(at_home(path))).is_dir():
            with suppress(OSError):
                found[f"{key}={path}"] = folder_digest(model_files(folder), folder)
    return found


def model_files(folder: Path) -> list[Path]:
    """The config, weights and tokenizer in a model's folder."""
    return sorted({file for pattern in _MODEL_FILES for file in folder.glob(pattern) if file.is_file()})


def check_model(experiment: Experiment, report: RunReport) -> None:
    """Refuse the model of a finished run if it is not the one that the report is about.

    Raises:
        UserError: its weights have changed.
    """
    model = experiment.directory / "model"
    if report.weights is not None and weights_digest(model) != report.weights:
        raise UserError(
            f"the weights in {model} are not those that the run saved",
            key="run.root",
            value=experiment.config["run"]["root"],
            cure=f"restore them, or remove {experiment.directory} to train anew",
        )


def check_inputs(experiment: Experiment, report: RunReport) -> None:
    """Refuse a run whose data files or model folders are not those that its report names.

    Args:
        report: of the run, finished or interrupted. One that names no inputs, made by an earlier version, is accepted.

    Raises:
        UserError: naming what changed.
    """
    if not report.inputs:
        return
    now = input_digests(experiment)
    changed = [name for name, digest in report.inputs.items() if name in now and now[name] != digest]
    if changed:
        key, _, path = changed[0].partition("=")
        raise UserError(
            f"its contents are not those from which {experiment.directory} was made",
            key=key,
            value=path,
            cure=f"restore them; or train anew with another run.root, or after removing {experiment.directory}",
        )


def _data_key(task: dict[str, object], path: str) -> str:
    return "task.validation_path" if task.get("validation_path") == path else "task.path"
