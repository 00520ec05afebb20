"""A teacher's answers, asked for once and kept by the hash of all that they depend on."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hydraprune.data.batches import Batches, Encoded
from hydraprune.errors import UserError
from hydraprune.sparsity import native_code as native
from hydraprune.training.distillation import Distiller
from hydraprune.training.fixed_shape_batches import TOKENS
from hydraprune.training.teachers import (
    Answers,
    GroupedTeacher,
    HeldAnswers,
    OnlineTeacher,
    StoredTeacher,
    Teacher,
    is_exact,
    recite,
)
from hydraprune.utils.cache import Cache, digest
from hydraprune.utils.tensor_io import bytes_of

_FLOAT = np.dtype("<f4")
# To be raised with every change of ours that changes what is asked or how it is kept.
_FORM = 2
# Bytes of answers that a process holds in memory; more is left in the file.
_SMALL = 16 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lesson:
    """What a teacher is to be asked, and how.

    Args:
        precision: of its forward passes, as in `Settings`.
        batches: the examples as they are put to a teacher on an accelerator; on a CPU they go in `Groups`.
        name: what the user calls the teacher, in messages.
    """

    model: nn.Module
    distiller: Distiller
    batches: Batches
    accelerator: Accelerator
    precision: str
    name: str = "the teacher"

    @property
    def data(self) -> Encoded:
        """The examples."""
        return self.batches.data

    @property
    def offsets(self) -> Tensor:
        """[examples + 1]; example i has the answers offsets[i] .. offsets[i + 1]: one per real token, or one."""
        return self.data.offsets if self.distiller.per_token else torch.arange(len(self.data) + 1)

    @property
    def rows(self) -> int:
        """Answers in all."""
        return int(self.offsets[-1])

    @property
    def alone(self) -> bool:
        """Whether an answer has the same bits in every company."""
        return is_exact(self.accelerator.device)

    def key(self) -> str:
        """Equal only where every answer would have the same bits."""
        return digest(self._parts())

    def _parts(self) -> Iterator[bytes | memoryview]:
        device = self.accelerator.device
        said = {
            "asks": f"{type(self.distiller).__module__}.{type(self.distiller).__qualname__}",
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processor": native.processor(),
            "torch": torch.__version__,
            "packages": [version(name) for name in ("transformers", "accelerate")],
            "products": torch.get_float32_matmul_precision(),
            "pad": self.data.pad_id,
            "form": _FORM,
            "company": TOKENS if self.alone else (self.batches.batch_size, self.batches.few_widths),
            "config": _config(self.model),
        }
        yield json.dumps(said, sort_keys=True, default=str).encode()
        for name, tensor in [*self.model.state_dict().items(), *self.data.inputs.items(), ("", self.data.offsets)]:
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
            yield bytes_of(tensor)


def _config(model: Any) -> dict[str, Any]:
    """What a Hugging Face config says of the computation; not where it came from."""
    return {k: v for k, v in model.config.to_dict().items() if k != "transformers_version" and k[:1] != "_"}


def teacher_of(lesson: Lesson, cache: Cache) -> tuple[Teacher, float]:
    """The teacher of a training: by its kept answers where they may be kept, else online.

    Returns:
        (the teacher, seconds spent on asking it)

    Raises:
        UserError: the cache's folder cannot be written, or an answer that would be kept is not a finite number.
    """
    distiller = lesson.distiller
    if not distiller.storable:
        return OnlineTeacher(lesson.model, distiller), 0.0
    if distiller.online:
        return _anew(lesson), 0.0
    start = time.perf_counter()
    width = _width(lesson)
    size = lesson.rows * width * 4
    if not cache.admits(size):
        log.info(
            "The teacher's answers would take %.3g GB, more than cache.max_gb=%g: it is asked anew in every step",
            size / 1e9,
            cache.max_gb,
        )
        return _anew(lesson), 0.0
    shape = (lesson.rows, width)
    said = cache.fetch(
        "answers", f"{lesson.key()}.npy", size, lambda place: _write(lesson, place, shape), lambda p: _read(p, shape)
    )
    return StoredTeacher(said, lesson.offsets, distiller.per_token), time.perf_counter() - start


def _anew(lesson: Lesson) -> Teacher:
    """Asked in every step: with the bits of what would be kept, where that can be had."""
    if lesson.alone:
        return GroupedTeacher(lesson.model, lesson.distiller, lesson.data)
    return OnlineTeacher(lesson.model, lesson.distiller)


def _width(lesson: Lesson) -> int:
    """Features of one answer, from a single example."""
    batch = next(Batches(lesson.data, 1).epoch())
    answer = OnlineTeacher(lesson.model, lesson.distiller).answers(batch.to(lesson.accelerator.device))
    assert answer is not None
    return int(answer.shape[-1])


def _write(lesson: Lesson, place: Path, shape: tuple[int, int]) -> None:
    log.info("Asking the teacher once about all %d examples (%.3g GB)", len(lesson.data), shape[0] * shape[1] * 4e-9)
    with place.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": _FLOAT.str, "fortran_order": False, "shape": shape})
        start, offsets = file.tell(), lesson.offsets.tolist()
        for example, values in recite(lesson.model, lesson.distiller, lesson.batches, lesson.accelerator):
            _check_finite(values, example, lesson.name)
            file.seek(start + offsets[example] * shape[1] * _FLOAT.itemsize)
            file.write(np.ascontiguousarray(values.numpy(), _FLOAT).tobytes())


def _check_finite(values: Tensor, example: int, name: str) -> None:
    wrong = values[~values.isfinite()]
    if len(wrong):
        raise UserError(
            f"{name}: answers {wrong[0].item()} to training example {example} (counted from 0), from which nothing can "
            f"be learned; give another teacher, or a training.precision in which it answers finite numbers"
        )


def _read(place: Path, shape: tuple[int, int]) -> Answers:
    """The answers in a file: in memory when they are few, else read from it as they are wanted."""
    file = place.open("rb", buffering=0)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("is of another version")
        found, _, dtype = np.lib.format.read_array_header_1_0(file)
        start, size = file.tell(), shape[0] * shape[1] * _FLOAT.itemsize
        if found != shape or dtype != _FLOAT or place.stat().st_size != start + size:
            raise ValueError(f"holds {dtype} {found} in {place.stat().st_size} bytes, not {_FLOAT} {shape}")
    except ValueError:
        file.close()
        raise
    answers = FiledAnswers(file, start, shape[1])
    return HeldAnswers(answers.take([(0, shape[0])])) if size <= _SMALL else answers


class FiledAnswers:
    """Answers in an open file, of which nothing stays in memory.

    Read, not mapped: the system keeps the pages either way, and a batch's few hundred kilobytes are
    copied many times quicker than as many pages are mapped.

    Args:
        start: byte at which the rows begin.
        width: features of a row, float32.
    """

    def __init__(self, file: FileIO, start: int, width: int) -> None:
        self.file, self.start, self.width = file, start, width

    def take(self, spans: Sequence[tuple[int, int]]) -> Tensor:
        """See `Answers`.

        Raises:
            OSError: the file cannot be read any more.
        """
        taken = torch.empty(sum(end - first for first, end in spans), self.width)
        room, stride = bytes_of(taken), self.width * _FLOAT.itemsize
        filled = 0
        for first, end in spans:
            self.file.seek(self.start + first * stride)
            wanted = filled + (end - first) * stride
            while filled < wanted:
                count = self.file.readinto(room[filled:wanted])
                if not count:
                    raise OSError(f"{self.file.name}: ends before row {end}; hydraprune cache --clean")
                filled += count
        return taken
