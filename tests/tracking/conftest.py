"""W&B as in a new process on a new machine: no key, no settings, no state of the previous test."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hydraprune.tracking.wandb_process import end_service


@pytest.fixture(autouse=True)
def fresh(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home for W&B."""
    home = tmp_path_factory.mktemp("wandb-home")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    # Handlers of an earlier command line in this process write to a closed stream.
    for handler in [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]:
        logging.getLogger().removeHandler(handler)
    yield home
    if "wandb" in sys.modules:
        end_service()
