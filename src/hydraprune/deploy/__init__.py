"""Finished models: their checks, and what makes them smaller and faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydraprune.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from hydraprune.deploy.acceleration import Acceleration, accelerate
    from hydraprune.deploy.slim_model import load_slim

__all__ = ["Acceleration", "accelerate", "load_slim"]

__getattr__ = lazy_exports(
    __name__,
    {
        "Acceleration": "hydraprune.deploy.acceleration",
        "accelerate": "hydraprune.deploy.acceleration",
        "load_slim": "hydraprune.deploy.slim_model",
    },
)
