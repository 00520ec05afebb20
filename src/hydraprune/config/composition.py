"""Composed configs: resolved, as plain values, and as typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from hydraprune.config.renamed_targets import with_current_targets
from hydraprune.errors import UserError
from hydraprune.utils.redaction import register_secrets


def resolved(config: DictConfig) -> DictConfig:
    """A copy without the `hydra` node and without interpolations.

    Raises:
        UserError: a value is missing, or refers to a key that is not there.
    """
    copy = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    if missing := sorted(OmegaConf.missing_keys(copy)):
        raise UserError(f"{missing[0]}: a value is needed here; give it on the command line: {missing[0]}=...")
    values = OmegaConf.to_container(copy, resolve=True)
    assert isinstance(values, dict)
    register_secrets(values)
    result: DictConfig = OmegaConf.create(with_current_targets(values))
    return result


def typed_words(config: DictConfig) -> list[str]:
    """The words of a job as they were typed, `${...}` in them too; `config` has its `hydra` node."""
    words = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(words, list)
    return [str(word) for word in words]


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as dicts and lists, interpolations as they stand, without the `hydra` node."""
    values = OmegaConf.to_container(config)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if key != "hydra"}


@dataclass(frozen=True)
class LoadedPath:
    """A model or data set that a run loads.

    Args:
        key: its config key.
        path: local, or a hub id.
        kind: a `file` is never a hub id.
    """

    key: str
    path: str
    kind: Literal["model", "dataset", "file"]


def loaded_paths(config: DictConfig) -> list[LoadedPath]:
    """The models and data sets that a run of `config` loads."""
    data: Literal["dataset", "file"] = (
        "file" if str(OmegaConf.select(config, "task._target_")).endswith("FileTask") else "dataset"
    )
    kinds: dict[str, Literal["model", "dataset", "file"]] = {
        "model.path": "model",
        "task.path": data,
        "task.validation_path": data,
        "dense.source": "model",
        "distill.teacher": "model",
    }
    found = ((key, OmegaConf.select(config, key, throw_on_missing=False), kind) for key, kind in kinds.items())
    # dense.source=auto: the run's own dense model.
    return [
        LoadedPath(key, path, kind)
        for key, path, kind in found
        if isinstance(path, str) and (key, path) != ("dense.source", "auto")
    ]
