"""Finished models: their checks, what makes them smaller, faster, or fit for other engines, and measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydraprune.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from hydraprune.deploy.acceleration import Acceleration, accelerate
    from hydraprune.deploy.compact_file import CompactTensors
    from hydraprune.deploy.compact_model import load_compact, read_compact, save_compact
    from hydraprune.deploy.compact_weight import CompactWeight, LiveBlocks, decode, encode, live_blocks
    from hydraprune.deploy.export_options import ExportOptions
    from hydraprune.deploy.exports import Exported, export_model
    from hydraprune.deploy.onnx_export import load_onnx
    from hydraprune.deploy.openvino_export import load_openvino
    from hydraprune.deploy.slim_model import load_slim
    from hydraprune.deploy.text_batches import TaskTexts

__all__ = [
    "Acceleration",
    "CompactTensors",
    "CompactWeight",
    "ExportOptions",
    "Exported",
    "LiveBlocks",
    "TaskTexts",
    "accelerate",
    "decode",
    "encode",
    "export_model",
    "live_blocks",
    "load_compact",
    "load_onnx",
    "load_openvino",
    "load_slim",
    "read_compact",
    "save_compact",
]

# No module has the name of an export: importing it would put the module in the place of the function.
__getattr__ = lazy_exports(
    __name__,
    {
        "Acceleration": "hydraprune.deploy.acceleration",
        "CompactTensors": "hydraprune.deploy.compact_file",
        "CompactWeight": "hydraprune.deploy.compact_weight",
        "ExportOptions": "hydraprune.deploy.export_options",
        "Exported": "hydraprune.deploy.exports",
        "LiveBlocks": "hydraprune.deploy.compact_weight",
        "TaskTexts": "hydraprune.deploy.text_batches",
        "accelerate": "hydraprune.deploy.acceleration",
        "decode": "hydraprune.deploy.compact_weight",
        "encode": "hydraprune.deploy.compact_weight",
        "export_model": "hydraprune.deploy.exports",
        "live_blocks": "hydraprune.deploy.compact_weight",
        "load_compact": "hydraprune.deploy.compact_model",
        "load_onnx": "hydraprune.deploy.onnx_export",
        "load_openvino": "hydraprune.deploy.openvino_export",
        "load_slim": "hydraprune.deploy.slim_model",
        "read_compact": "hydraprune.deploy.compact_model",
        "save_compact": "hydraprune.deploy.compact_model",
    },
)
