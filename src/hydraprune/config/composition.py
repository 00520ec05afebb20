"""Composition of configs, their plain resolved values, and the overrides as typed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hydra import compose
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from hydraprune.config.renamed_targets import with_current_targets
from hydraprune.errors import UserError
from hydraprune.utils.redaction import register_secrets

# Overrides -> the config that they compose to, interpolations not resolved.
Compose = Callable[[Sequence[str]], DictConfig]


def conf_dir() -> Path:
    """The folder of config files: inside an installed wheel, or beside `src` in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "conf"


def composed(overrides: Sequence[str]) -> DictConfig:
    """The config that some overrides compose to, interpolations not resolved.

    Raises:
        HydraException: the overrides do not fit.
    """
    config: DictConfig = compose("config", list(overrides))
    return config


def resolved(config: DictConfig) -> dict[str, Any]:
    """Plain values without the `hydra` node and without interpolations, targets by today's module paths.

    Raises:
        UserError: a value is missing.
        OmegaConfBaseException: an interpolation refers to a key that is not there.
    """
    try:
        values = {str(key): _plain_value(config, str(key)) for key in config if key != "hydra"}
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        cure = f"give it on the command line: {key}=..."
        raise UserError("a value is needed here", key=key, cure=cure) from None
    register_secrets(values)
    current: dict[str, Any] = with_current_targets(values)
    return current


def _plain_value(config: DictConfig, key: str) -> Any:
    value = config[key]
    return OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value


def literal(values: Any) -> Any:
    """Plain values in which no text is an interpolation: in a config, `${...}` in them stays as it is.

    For resolved values that become part of a config again: without this they would be resolved a second time.
    """
    if isinstance(values, Mapping):
        return {key: literal(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [literal(value) for value in values]
    # Backslashes before an interpolation are halved when it is resolved.
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", values) if isinstance(values, str) else values


def with_hydra_node(config: DictConfig, hydra: Any) -> DictConfig:
    """A config with Hydra's node in it again, its interpolations not resolved."""
    return OmegaConf.create({**plain(config), "hydra": hydra})


def typed_words(config: DictConfig) -> list[str]:
    """The overrides of a job as they were typed, `${...}` in them too; `config` has its `hydra` node."""
    words = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(words, list)
    return [str(word) for word in words]


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as dicts and lists, interpolations not resolved, without the `hydra` node."""
    values = OmegaConf.to_container(config)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if key != "hydra"}


def is_plan_only(config: DictConfig | Mapping[str, Any]) -> bool:
    """Whether `plan=true` was asked for: a plan is shown, and nothing runs.

    Raises:
        UserError: `plan` is neither true nor false; `no` is a text, which would count as true.
    """
    plan = config.get("plan", False)
    if not isinstance(plan, bool):
        raise UserError("must be true or false", key="plan", value=plan)
    return plan


def choices_of(config: DictConfig) -> dict[str, str]:
    """Config group -> the choice made, as in `model=bert_mini`; including Hydra's own groups."""
    return {str(k): v for k, v in config.hydra.runtime.choices.items() if isinstance(v, str)}


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
