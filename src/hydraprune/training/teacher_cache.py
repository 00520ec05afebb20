"""Teacher cache: a teacher's outputs for a data set, computed once and stored under a hash of all they depend on."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hydraprune.data.batches import Batches, Encoded
from hydraprune.errors import UserError
from hydraprune.sparsity import native_code
from hydraprune.training.distillation import Distiller
from hydraprune.training.fixed_shape_batches import TOKENS
from hydraprune.training.teachers import (
    FixedShapeTeacher,
    OnlineTeacher,
    StoredTeacher,
    Teacher,
    is_batch_invariant,
    iter_outputs,
)
from hydraprune.utils.cache import Cache, digest
from hydraprune.utils.sizes import format_bytes
from hydraprune.utils.tensor_io import bytes_of

_FLOAT = np.dtype("<f4")
# Raise with every change in what is computed or how it is stored.
_FORMAT_VERSION = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher, the data set it runs on, and how it runs.

    Args:
        batches: how it runs on an accelerator; on a CPU it runs in fixed shapes.
        precision: of its forward passes, as in `Settings`.
        source_key, source: the config key that names the teacher, and its value; for errors.
        kernels: the name of those that compute its layers; None: PyTorch does.
    """

    model: nn.Module
    distiller: Distiller
    batches: Batches
    accelerator: Accelerator
    precision: str
    source_key: str = "distill.teacher"
    source: str | None = None
    kernels: str | None = None

    @property
    def data(self) -> Encoded:
        """The data set."""
        return self.batches.data

    @property
    def per_token(self) -> bool:
        """Whether the teacher's outputs have a row per token."""
        return self.distiller.rows_per_token(self.data.head)

    @property
    def offsets(self) -> Tensor:
        """[examples + 1]; example i has the output rows offsets[i] .. offsets[i + 1]: one per token, or one."""
        return self.data.offsets if self.per_token else torch.arange(len(self.data) + 1)

    @property
    def rows(self) -> int:
        """Output rows of all examples."""
        return int(self.offsets[-1])

    @property
    def batch_invariant(self) -> bool:
        """Whether an example's outputs have the same bits whatever else is in its batch."""
        return is_batch_invariant(self.accelerator.device)

    def key(self) -> str:
        """A hash; equal only if all outputs have the same bits."""
        return digest(self._contents())

    def _contents(self) -> Iterator[bytes | memoryview]:
        device = self.accelerator.device
        # These names are part of the hash: renaming one discards every stored output.
        dependencies = {
            "asks": f"{type(self.distiller).__module__}.{type(self.distiller).__qualname__}",
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processor": native_code.processor(),
            "torch": torch.__version__,
            "packages": [version(name) for name in ("transformers", "accelerate")],
            "products": torch.get_float32_matmul_precision(),
            "pad": self.data.pad_id,
            "form": _FORMAT_VERSION,
            "company": TOKENS if self.batch_invariant else (self.batches.batch_size, self.batches.few_widths),
            "config": _computation_config(self.model),
            **({"kernels": self.kernels} if self.kernels else {}),
        }
        yield json.dumps(dependencies, sort_keys=True, default=str).encode()
        for name, tensor in [*self.model.state_dict().items(), *self.data.inputs.items(), ("", self.data.offsets)]:
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
            yield bytes_of(tensor)


def _computation_config(model: Any) -> dict[str, Any]:
    """The fields of a Hugging Face config that affect the computation, without where the model came from."""
    return {k: v for k, v in model.config.to_dict().items() if k != "transformers_version" and k[:1] != "_"}


def make_teacher(spec: TeacherSpec, cache: Cache) -> tuple[Teacher, float]:
    """The teacher of a training: stored outputs if they may be stored, else an online teacher.

    Returns:
        (the teacher, seconds spent on computing or loading stored outputs)

    Raises:
        UserError: the cache's folder cannot be written, or an output to be stored is not finite.
    """
    distiller = spec.distiller
    if not distiller.cacheable:
        return OnlineTeacher(spec.model, distiller), 0.0
    if distiller.online:
        return _online(spec), 0.0
    start = time.perf_counter()
    shape = (spec.rows, _features(spec))
    size = shape[0] * shape[1] * _FLOAT.itemsize
    if not cache.admits(size):
        log.info(
            "The teacher runs in every step: its outputs would take %s, more than cache.max_gb=%g",
            format_bytes(size),
            cache.max_gb,
        )
        return _online(spec), 0.0
    rows = cache.fetch(
        "answers", f"{spec.key()}.npy", size, lambda path: _write(spec, path, shape), lambda path: _read(path, shape)
    )
    return StoredTeacher(rows, spec.offsets, spec.per_token), time.perf_counter() - start


def _online(spec: TeacherSpec) -> Teacher:
    """A teacher that runs in every step: with the bits of stored outputs where the device allows it."""
    if spec.batch_invariant:
        return FixedShapeTeacher(spec.model, spec.distiller, spec.data)
    return OnlineTeacher(spec.model, spec.distiller)


def _features(spec: TeacherSpec) -> int:
    """Features of an output row, from a single example."""
    batch = next(Batches(spec.data, 1).epoch())
    outputs = OnlineTeacher(spec.model, spec.distiller).outputs(batch.to(spec.accelerator.device))
    return int(outputs.shape[-1])


def _write(spec: TeacherSpec, path: Path, shape: tuple[int, int]) -> None:
    """Compute all outputs and write them as .npy, row by row in the order in which they come."""
    size = shape[0] * shape[1] * _FLOAT.itemsize
    log.info("Running the teacher once on all %d examples (%s)", len(spec.data), format_bytes(size))
    with path.open("wb") as file:
        # Not by a memory map, whose process would crash on a full disk.
        np.lib.format.write_array_header_1_0(file, {"descr": _FLOAT.str, "fortran_order": False, "shape": shape})
        start, offsets = file.tell(), spec.offsets.tolist()
        for example, values in iter_outputs(spec.model, spec.distiller, spec.batches, spec.accelerator):
            _check_finite(values, example, spec)
            file.seek(start + offsets[example] * shape[1] * _FLOAT.itemsize)
            file.write(np.ascontiguousarray(values.numpy(), _FLOAT).tobytes())


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The stored outputs, mapped into memory.

    Raises:
        ValueError: the file is not a whole array of this shape.
    """
    rows = np.lib.format.open_memmap(path, mode="r")
    if rows.shape != shape or rows.dtype != _FLOAT or path.stat().st_size != rows.offset + rows.nbytes:
        raise ValueError(f"it holds {rows.dtype} {rows.shape}, not {_FLOAT} {shape}")
    return rows


def _check_finite(values: Tensor, example: int, spec: TeacherSpec) -> None:
    wrong = values[~values.isfinite()]
    if len(wrong):
        raise UserError(
            f"the teacher's output for training example {example} (counted from 0) holds {wrong[0].item()}",
            key=spec.source_key,
            value=spec.source,
            cure="give another teacher, or a training.precision in which its outputs are finite",
        )
