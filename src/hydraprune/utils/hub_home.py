"""Where huggingface_hub keeps its cache and token, from the environment; needs only the standard library."""

from __future__ import annotations

import os
from pathlib import Path


def hub_home() -> Path:
    """The home folder of the hub, by the rule of `huggingface_hub.constants.HF_HOME`.

    Not imported from there: doctor must name it when huggingface_hub is broken or missing, and
    redaction before it is imported.
    """
    cache = os.environ.get("XDG_CACHE_HOME", os.path.join(os.path.expanduser("~"), ".cache"))
    return _expanded(os.environ.get("HF_HOME", os.path.join(cache, "huggingface")))


def token_file() -> Path:
    """The file of the hub's token, by the rule of `huggingface_hub.constants.HF_TOKEN_PATH`."""
    return _expanded(os.environ.get("HF_TOKEN_PATH", str(hub_home() / "token")))


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(path)))
