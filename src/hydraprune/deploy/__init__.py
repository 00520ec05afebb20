"""Finished models: checks of their zeros, and exports for other engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydraprune.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from hydraprune.deploy.compact_file import CompactTensors
    from hydraprune.deploy.compact_model import load_compact, read_compact, save_compact
    from hydraprune.deploy.compact_weight import CompactWeight, LiveBlocks, decode, encode, live_blocks

__all__ = [
    "CompactTensors",
    "CompactWeight",
    "LiveBlocks",
    "decode",
    "encode",
    "live_blocks",
    "load_compact",
    "read_compact",
    "save_compact",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "CompactTensors": "hydraprune.deploy.compact_file",
        "CompactWeight": "hydraprune.deploy.compact_weight",
        "LiveBlocks": "hydraprune.deploy.compact_weight",
        "decode": "hydraprune.deploy.compact_weight",
        "encode": "hydraprune.deploy.compact_weight",
        "live_blocks": "hydraprune.deploy.compact_weight",
        "load_compact": "hydraprune.deploy.compact_model",
        "read_compact": "hydraprune.deploy.compact_model",
        "save_compact": "hydraprune.deploy.compact_model",
    },
)
