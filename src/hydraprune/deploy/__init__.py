"""Finished models: checks of their zeros, and what makes them smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydraprune.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from hydraprune.deploy.slim_model import load_slim

__all__ = ["load_slim"]

__getattr__ = lazy_exports(__name__, {"load_slim": "hydraprune.deploy.slim_model"})
