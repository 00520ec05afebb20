"""Hydra in a test: composing configs from conf/ as the command line does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from hydraprune.config.composition import conf_dir
from hydraprune.runs.resolvers import register


@contextmanager
def composing() -> Iterator[Callable[..., DictConfig]]:
    """Yields a function that composes words, with Hydra's own node; Hydra is reset before and after."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield lambda *words: compose("config", list(words), return_hydra_config=True)
    GlobalHydra.instance().clear()
