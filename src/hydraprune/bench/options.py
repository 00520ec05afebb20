"""What to measure: engines and their precisions, batches and lengths, threads, rounds. Light to import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydraprune.errors import UserError

# Engine -> its precisions.
PRECISIONS = {
    "torch": ("fp32", "bf16", "int8"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "hydraprune": ("fp32", "bf16"),
}
# Engine -> its extra of this package; the others are always installed.
EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
BATCHES, LENGTHS = (1, 8), (32, 128)
# Calls of a turn; the first is not counted.
CALLS = 3
_MOST = {"--batch": 4096, "--length": 1 << 20, "--threads": 1024, "--rounds": 100_000, "--examples": 1 << 30}


@dataclass(frozen=True, order=True)
class Side:
    """An engine at a precision."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


REFERENCE = Side("torch", "fp32")


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Args:
        engines: keys of `PRECISIONS`.
        precisions: of each engine, as far as it has them.
        batches: texts of a call.
        lengths: tokens of each text; None: those of `LENGTHS` that every model can read.
        threads: of each engine; also the cores that it is pinned to.
        rounds: turns of each side on each workload.
        examples: of the task's evaluation set, at most: for the metric.
        out: folder for bench.md and bench.json.

    Raises:
        UserError: a value is out of range, or an engine or precision is not known.
    """

    engines: Sequence[str] = tuple(PRECISIONS)
    precisions: Sequence[str] = ("fp32", "bf16", "int8")
    batches: Sequence[int] = BATCHES
    lengths: Sequence[int] | None = None
    threads: int = 1
    rounds: int = 9
    examples: int = 2000
    out: Path | None = None

    def __post_init__(self) -> None:
        known = {"--engines": tuple(PRECISIONS), "--precisions": _all_precisions()}
        for key, given in (("--engines", self.engines), ("--precisions", self.precisions)):
            if wrong := [word for word in given if word not in known[key]]:
                reason, cure = f"{wrong[0]!r} is not known", f"give some of {','.join(known[key])}"
                raise UserError(reason, key=f"{key} {','.join(given)}", cure=cure)
        numbers = {"--batch": self.batches, "--length": self.lengths or LENGTHS}
        numbers |= {"--threads": [self.threads], "--rounds": [self.rounds], "--examples": [self.examples]}
        for key, values in numbers.items():
            if not values or not all(1 <= value <= _MOST[key] for value in values):
                shown = ",".join(map(str, values))
                raise UserError(f"must be from 1 to {_MOST[key]}", key=f"{key} {shown}".strip())
        if not self.sides:
            reason = f"{', '.join(self.engines) or 'no engine'} has none of {', '.join(self.precisions) or 'none'}"
            raise UserError(reason, key="--precisions", cure="add another engine or precision")

    @property
    def sides(self) -> list[Side]:
        """What is compared, each once."""
        return [
            Side(engine, precision)
            for engine in dict.fromkeys(self.engines)
            for precision in PRECISIONS[engine]
            if precision in self.precisions
        ]


def numbers_of(text: str, key: str) -> tuple[int, ...]:
    """The numbers of `1,8`, each once.

    Args:
        key: the option, for errors.

    Raises:
        UserError: one of them is no whole number.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
        raise UserError("must be whole numbers with commas between", key=f"{key} {text}", cure=f"as in {key} 1,8")
    return tuple(dict.fromkeys(map(int, words)))


def words_of(text: str) -> tuple[str, ...]:
    """The words of `torch,openvino`."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _all_precisions() -> tuple[str, ...]:
    return tuple(dict.fromkeys(precision for precisions in PRECISIONS.values() for precision in precisions))
