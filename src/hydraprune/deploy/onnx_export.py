"""ONNX: a classifier as an ONNX file, in single precision or dynamically quantized, and its session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hydraprune.deploy.engines import converting, require
from hydraprune.deploy.graph import OUTPUT, axes, trace
from hydraprune.errors import UserError

ONNX_FILE = "model.onnx"
OPSET = 18


def write_onnx(model: nn.Module, names: Sequence[str], file: Path) -> None:
    """Write a classifier as ONNX, with any batch size and length.

    Args:
        model: on the CPU and in evaluation mode.
        names: of its inputs.

    Raises:
        UserError: onnx is not installed, or the model cannot be converted.
    """
    require("onnx")
    # ONNX Runtime is faster with attention written out than with the masks of torch's fused one.
    graph = trace(model, names, "eager")
    with converting("MODEL"):
        program: Any = torch.onnx.export(
            graph,
            input_names=names,
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamic_shapes=axes(names),
            dynamo=True,
            verbose=False,
        )
        for node in program.model.graph.all_nodes():
            # Where in which file of this machine an operation was traced.
            node.metadata_props.clear()
        program.save(str(file), external_data=False)


def quantize_onnx(file: Path, target: Path) -> None:
    """Write an ONNX model with the weights of its matrix products as int8, one scale for each output.

    Activations are quantized while it runs. Embedding tables and everything else stay as they are.

    Raises:
        UserError: it cannot be quantized.
    """
    require("onnx")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with converting("MODEL"):
        quantize_dynamic(
            file, target, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
        )


def load_onnx(folder: str | Path, threads: int | None = None) -> Any:
    """The session of an exported folder in ONNX Runtime, on the CPU.

    Args:
        threads: to compute with; None: as many as ONNX Runtime chooses.

    Raises:
        UserError: onnxruntime is not installed, or there is no ONNX model that it can load.
    """
    require("onnx")
    import onnxruntime

    file = Path(folder) / ONNX_FILE
    if not file.is_file():
        raise UserError("no such file", key=str(file), cure="give a folder that hydraprune export --to onnx wrote")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    with converting(str(file)):
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
