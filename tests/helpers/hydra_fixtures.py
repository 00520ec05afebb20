"""Fixtures for tests that compose configs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from hydraprune.config.composition import conf_dir
from hydraprune.runs.resolvers import register


@pytest.fixture(scope="module")
def hydra_once() -> Iterator[None]:
    """A module whose tests share one Hydra, with its cache of composed files."""
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


@pytest.fixture(autouse=True)
def hydra_ready(hydra_once: None) -> None:
    """Hydra, initialized with conf/."""
    register()
    if not GlobalHydra.instance().is_initialized():
        initialize_config_dir(str(conf_dir()), version_base="1.3")
