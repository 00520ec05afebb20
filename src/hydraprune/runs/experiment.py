"""What was asked for: a composed config, how it was typed, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from hydraprune.config.identity import Identity


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
