"""What was asked for: a composed config, how it was typed, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydraprune.errors import UserError
from hydraprune.identity import Identity
from hydraprune.redaction import learn


@dataclass(frozen=True)
class Request:
    """One job, before anything is made of it.

    Args:
        config: resolved, without the `hydra` node.
        choices: group -> the word chosen, as in `model=bert_mini`.
        overrides: as typed.
        identity: of the config.
        directory: where the run goes.
        alone: whether it has the terminal to itself; otherwise it speaks in its train.log only.
        asked: whether a person asked for it; a dense model that is trained on the way was not.
    """

    config: DictConfig
    choices: Mapping[str, str]
    overrides: list[str]
    identity: Identity
    directory: Path
    alone: bool = True
    asked: bool = True

    @property
    def hash(self) -> str:
        """The run's hash."""
        return self.identity.hash


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
    return OmegaConf.create(values)


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
