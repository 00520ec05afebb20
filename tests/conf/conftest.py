"""Hydra, ready to compose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from hydraprune.folders import register
from hydraprune.mistakes import conf_dir


@pytest.fixture(autouse=True)
def hydra_ready() -> Iterator[None]:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()
