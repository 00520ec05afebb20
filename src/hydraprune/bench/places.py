"""Where the sides of a bench are loaded from: the model's own folder, or what it is converted to for an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydraprune.bench.models import BenchModel
from hydraprune.bench.options import EXTRAS, Side
from hydraprune.bench.workloads import BenchTask, bench_inputs, with_all
from hydraprune.deploy.acceleration import accelerate
from hydraprune.deploy.compact_file import COMPACT_FILE
from hydraprune.deploy.engines import require
from hydraprune.deploy.onnx_export import ONNX_FILE, quantize_onnx, write_onnx
from hydraprune.deploy.openvino_export import quantize_openvino, to_openvino, write_openvino
from hydraprune.deploy.text_batches import CALIBRATED, input_batches, spread
from hydraprune.errors import UserError, one_line
from hydraprune.utils.hub_access import exists

# Where a folder has both, safetensors are loaded.
_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True)
class Place:
    """Where a side is loaded from.

    Args:
        disk_bytes: of the files with its weights.
    """

    folder: Path
    disk_bytes: int


def places(
    model: BenchModel, sides: Sequence[Side], task: BenchTask | None, folder: Path
) -> dict[Side, Place | UserError]:
    """Where each side is loaded from, or why it cannot be.

    Args:
        task: whose texts int8 is calibrated on; None: there are none.
        folder: a new one, for what the model is converted to.
    """
    found: dict[Side, Place | UserError] = {}
    for engine in dict.fromkeys(side.engine for side in sides):
        precisions = [side.precision for side in sides if side.engine == engine]
        converter = _Converter(model, task, folder)
        made = _attempt(partial(_CONVERTERS[engine], converter, precisions))
        for precision in precisions:
            found[Side(engine, precision)] = made if isinstance(made, UserError) else made[precision]
    return found


_Made = dict[str, "Place | UserError"]


@dataclass(frozen=True)
class _Converter:
    """Writes one model for engines into subfolders of a folder."""

    model: BenchModel
    task: BenchTask | None
    folder: Path

    def own(self, precisions: Sequence[str]) -> _Made:
        """The model as it is."""
        return dict.fromkeys(precisions, Place(self.model.folder, weights_bytes(self.model.folder)))

    def accelerated(self, precisions: Sequence[str]) -> _Made:
        """The model as it is; the kernels are compiled now, not while a worker is timed."""
        accelerate(self.model.model)
        return self.own(precisions)

    def onnx(self, precisions: Sequence[str]) -> _Made:
        """ONNX, and its quantized form."""
        _require("onnxruntime")
        model = self.model.model
        single = self._write("onnx-fp32", lambda target: write_onnx(model, bench_inputs(model), target / ONNX_FILE))
        made: _Made = {"fp32": single}
        if "int8" in precisions:
            made["int8"] = _attempt(
                lambda: self._write(
                    "onnx-int8", lambda target: quantize_onnx(single.folder / ONNX_FILE, target / ONNX_FILE)
                )
            )
        return made

    def openvino(self, precisions: Sequence[str]) -> _Made:
        """OpenVINO's IR for each precision: the same but for its options, and for int8."""
        _require("openvino")
        made: _Made = {}
        possible = list(precisions)
        if self.task is None and "int8" in precisions:
            reason, cure = "is calibrated on the texts of a task, and none is given", "for example task=sst2"
            made["int8"] = UserError(reason, cure=cure)
            possible.remove("int8")
        if not possible:
            return made
        converted = to_openvino(self.model.model, bench_inputs(self.model.model))
        for precision in possible:
            made[precision] = _attempt(
                partial(self._write, f"openvino-{precision}", partial(self._write_openvino, converted, precision))
            )
        return made

    def _write_openvino(self, converted: Any, precision: str, target: Path) -> None:
        if precision != "int8" or self.task is None:
            write_openvino(converted, precision, target)
            return
        names, texts = bench_inputs(self.model.model), spread(self.task.calibration, CALIBRATED)
        batches = input_batches(texts, self.model.tokenizer, self.model.model, 1, self.task.max_length)
        quantized = quantize_openvino(converted, [with_all(names, batch) for batch in batches])
        write_openvino(quantized, precision, target)

    def _write(self, name: str, write: Callable[[Path], None]) -> Place:
        target = self.folder / name
        target.mkdir()
        write(target)
        return Place(target, sum(file.stat().st_size for file in target.iterdir()))


_CONVERTERS: dict[str, Callable[[_Converter, Sequence[str]], _Made]] = {
    "torch": _Converter.own,
    "hydraprune": _Converter.accelerated,
    "onnxruntime": _Converter.onnx,
    "openvino": _Converter.openvino,
}


def _attempt(make: Callable[[], Any]) -> Any:
    """What `make` returns, or its error: an engine that fails leaves the others."""
    try:
        return make()
    except UserError as error:
        return error
    except Exception as error:  # converters raise dozens of classes
        return UserError(f"cannot be converted ({one_line(error):.200})")


def _require(engine: str) -> None:
    try:
        require(EXTRAS[engine])
    except UserError as error:
        raise UserError(error.reason, cure=error.cure) from None  # its key is an option of export


def weights_bytes(folder: Path) -> int:
    """Bytes of the files in a model's folder that its weights are loaded from."""
    compact = folder / COMPACT_FILE
    if exists(compact):
        return compact.stat().st_size
    files = [[file for file in folder.iterdir() if file.is_file() and file.suffix == kind] for kind in _WEIGHTS]
    return sum(file.stat().st_size for file in files[0] or files[1])
