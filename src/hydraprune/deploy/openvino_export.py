"""OpenVINO: a classifier as an intermediate representation (IR), also quantized with NNCF, and its compiled model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hydraprune.deploy.engines import converting, require
from hydraprune.deploy.graph import OUTPUT, trace
from hydraprune.deploy.text_batches import Inputs
from hydraprune.errors import UserError
from hydraprune.utils.files import read_bytes

OPENVINO_FILE = "model.xml"
# Options of `compile_model` that belong to an export, as a JSON object.
OPTIONS_FILE = "openvino_options.json"
_HINT = "INFERENCE_PRECISION_HINT"
# Precision -> options. Without the hint OpenVINO computes in bfloat16 where the processor has it; an int8 model is
# left to that, for what is not quantized.
OPTIONS: dict[str, dict[str, str]] = {"fp32": {_HINT: "f32"}, "bf16": {_HINT: "bf16"}, "int8": {}}
_LARGEST_OPTIONS = 1 << 16


def to_openvino(model: nn.Module, names: Sequence[str]) -> Any:
    """A classifier as an `openvino.Model`, with any batch size and length.

    Args:
        model: on the CPU and in evaluation mode.
        names: of its inputs.

    Raises:
        UserError: openvino is not installed, or the model cannot be converted.
    """
    require("openvino")
    import openvino

    graph = trace(model, names, "sdpa")
    with converting("MODEL"):
        converted = openvino.convert_model(graph)
        for place, name in enumerate(names):
            converted.inputs[place].get_tensor().set_names({name})
        converted.outputs[0].get_tensor().set_names({OUTPUT})
        return converted


def quantize_openvino(converted: Any, calibration: Sequence[Inputs]) -> Any:
    """An `openvino.Model` in int8, with the ranges of its activations from calibration batches.

    Raises:
        UserError: it cannot be quantized.
    """
    require("openvino")
    with converting("MODEL"):
        import nncf

        arrays = [{name: tensor.numpy() for name, tensor in inputs.items()} for inputs in calibration]
        return nncf.quantize(
            converted, nncf.Dataset(arrays), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(arrays)
        )


def write_openvino(converted: Any, precision: str, folder: Path) -> None:
    """Write the IR, float weights as float32, and beside it the options that `load_openvino` compiles it with.

    Args:
        precision: a key of `OPTIONS`.
    """
    import openvino

    openvino.save_model(converted, folder / OPENVINO_FILE, compress_to_fp16=False)
    (folder / OPTIONS_FILE).write_text(json.dumps(OPTIONS[precision], indent=2) + "\n", encoding="utf-8")


def load_openvino(folder: str | Path, threads: int | None = None) -> Any:
    """The `CompiledModel` of an exported folder, on the CPU and in the precision of the export.

    Args:
        threads: to compute with; None: as many as OpenVINO chooses.

    Raises:
        UserError: openvino is not installed, or there is no IR that it can load.
    """
    require("openvino")
    import openvino

    file = Path(folder) / OPENVINO_FILE
    if not file.is_file():
        raise UserError("no such file", key=str(file), cure="give a folder that hydraprune export --to openvino wrote")
    options = _options(Path(folder) / OPTIONS_FILE)
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    with converting(str(file)):
        return openvino.Core().compile_model(file, "CPU", options)


def computes_in_bf16() -> bool:
    """Whether OpenVINO has bfloat16 on this processor; where not, it computes in float32 despite the hint."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _options(file: Path) -> dict[str, Any]:
    try:
        options = json.loads(read_bytes(file, _LARGEST_OPTIONS))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read ({error})", key=str(file)) from None
    if not isinstance(options, dict):
        raise UserError("holds no JSON object", key=str(file), cure="export the model again")
    return options
