"""Composed configs: resolved, as plain values, and as typed."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydraprune.config.renamed_targets import with_current_targets
from hydraprune.errors import UserError
from hydraprune.utils.redaction import learn


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
    learn(values)
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
