"""The engines of a bench, in the process that is timed: each loads a model and computes batches with it."""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, cast

import numpy

from hydraprune.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydraprune.bench.meter import Meter
    from hydraprune.kernels.packing import Precision


class Runner(ABC):
    """A loaded model.

    Args:
        note: what the engine says of how it computes, where that is not plain.
    """

    note: str | None = None

    @abstractmethod
    def prepare(self, batch: Mapping[str, Sequence[Sequence[int]]]) -> Any:
        """What `compute` takes, of a batch: input -> [texts, tokens]."""

    @abstractmethod
    def compute(self, prepared: Any) -> Any:
        """The outputs, as the engine gives them. This is what is timed."""

    @abstractmethod
    def logits(self, outputs: Any) -> list[list[float]]:
        """[texts, labels].

        Raises:
            UserError: they are not finite.
        """


class _TorchRunner(Runner):
    """A torch module: a model of transformers, or an accelerated one."""

    def __init__(self, model: Any) -> None:
        import torch

        self._torch, self._model = torch, model

    def prepare(self, batch: Mapping[str, Sequence[Sequence[int]]]) -> Any:
        return {name: self._torch.tensor(rows) for name, rows in batch.items()}

    def compute(self, prepared: Any) -> Any:
        with self._torch.inference_mode():
            return self._model(**prepared).logits

    def logits(self, outputs: Any) -> list[list[float]]:
        return _finite(outputs.float().numpy())


class _OnnxRunner(Runner):
    def __init__(self, session: Any) -> None:
        self._session = session

    def prepare(self, batch: Mapping[str, Sequence[Sequence[int]]]) -> Any:
        return _arrays(batch)

    def compute(self, prepared: Any) -> Any:
        return self._session.run(None, prepared)[0]

    def logits(self, outputs: Any) -> list[list[float]]:
        return _finite(outputs)


class _OpenvinoRunner(Runner):
    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()

    def prepare(self, batch: Mapping[str, Sequence[Sequence[int]]]) -> Any:
        return _arrays(batch)

    def compute(self, prepared: Any) -> Any:
        return self._request.infer(prepared, share_inputs=True, share_outputs=True)[0]

    def logits(self, outputs: Any) -> list[list[float]]:
        return _finite(outputs)


def load(engine: str, precision: str, folder: str, threads: int, meter: Meter) -> Runner:
    """Import an engine, and load a model in it, which the meter measures.

    Args:
        engine, precision: of a `Side`.
        folder: of the model, or of what it was converted to.

    Raises:
        UserError: the model cannot be loaded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _LOADERS[engine](precision, folder, threads, meter)


def _torch(precision: str, folder: str, threads: int, meter: Meter) -> Runner:
    source = _imported(folder, threads)
    import torch

    with meter.loading():
        model = source.load().eval()
        if precision == "bf16":
            model = model.to(torch.bfloat16)
        elif precision == "int8":
            model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    runner = _TorchRunner(model)
    runner.note = "dynamic, of nn.Linear" if precision == "int8" else None
    return runner


def _hydraprune(precision: str, folder: str, threads: int, meter: Meter) -> Runner:
    _imported(folder, threads)
    from hydraprune.deploy.acceleration import accelerate

    with meter.loading():
        model: Any = accelerate(folder, cast("Precision", precision))
    runner = _TorchRunner(model)
    runner.note = str(model.acceleration)
    return runner


def _onnxruntime(precision: str, folder: str, threads: int, meter: Meter) -> Runner:
    from hydraprune.deploy.engines import require
    from hydraprune.deploy.onnx_export import load_onnx

    require("onnx")
    import onnxruntime  # noqa: F401 now rather than in `load_onnx`: it is not part of the model

    with meter.loading():
        session = load_onnx(folder, threads)
    runner = _OnnxRunner(session)
    runner.note = "dynamic, of matrix products" if precision == "int8" else None
    return runner


def _openvino(precision: str, folder: str, threads: int, meter: Meter) -> Runner:
    from hydraprune.deploy.engines import require
    from hydraprune.deploy.openvino_export import computes_in_bf16, load_openvino

    require("openvino")
    import openvino  # noqa: F401 as above

    computes_in_bf16()  # loads the plugin of the CPU, which is a library too
    with meter.loading():
        compiled = load_openvino(folder, threads)
        runner = _OpenvinoRunner(compiled)
    hint = str(compiled.get_property("INFERENCE_PRECISION_HINT")).strip("<>").split("'")[1:2]
    runner.note = f"INFERENCE_PRECISION_HINT={hint[0]}" if hint else None
    if precision == "bf16" and not computes_in_bf16():
        runner.note = "this processor has no bfloat16 for it: it computes in fp32"
    return runner


_LOADERS = {"torch": _torch, "hydraprune": _hydraprune, "onnxruntime": _onnxruntime, "openvino": _openvino}


def _imported(folder: str, threads: int) -> Any:
    """The source of a model in torch, all modules that loading it takes being imported."""
    import torch

    from hydraprune.deploy.compact_model import source_of
    from hydraprune.utils.hub_access import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(threads)
    with contextlib.suppress(RuntimeError):  # set already
        torch.set_num_interop_threads(1)
    source = source_of(folder, "MODEL")
    source.blueprint()
    return source


def _arrays(batch: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, Any]:
    return {name: numpy.array(rows, dtype=numpy.int64) for name, rows in batch.items()}


def _finite(logits: Any) -> list[list[float]]:
    if not numpy.isfinite(logits).all():
        raise UserError("its outputs are not finite")
    rows: list[list[float]] = logits.astype(float).tolist()
    return rows
