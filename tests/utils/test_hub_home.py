"""The hub's folders by our rule are those of huggingface_hub."""

from __future__ import annotations

import runpy

import pytest
from huggingface_hub import constants

from hydraprune.utils.hub_home import hub_home, token_file


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"XDG_CACHE_HOME": ""},  # set, but empty: the current folder
        {"XDG_CACHE_HOME": "/scratch/cache"},
        {"XDG_CACHE_HOME": "~/cache"},
        {"HF_HOME": "/scratch/hub", "XDG_CACHE_HOME": "/elsewhere"},
        {"HF_HOME": "~/hub"},
        {"HF_HOME": "$HOME/hub"},
        {"HF_HOME": ""},
        {"HF_TOKEN_PATH": "~/token", "HF_HOME": "/scratch/hub"},
    ],
    ids=str,
)
def test_same_folders_as_huggingface_hub(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # Executed again: the module reads the environment when it is imported.
    fresh = runpy.run_path(constants.__file__)
    assert str(hub_home()) == (fresh["HF_HOME"] or ".")
    assert str(token_file()) == fresh["HF_TOKEN_PATH"]
