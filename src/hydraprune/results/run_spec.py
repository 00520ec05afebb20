"""The description of a run that reports, plans, tables and trackers contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from hydraprune.results.json_records import check_fields


@dataclass(frozen=True)
class RunSpec:
    """The description of a run in plain values, made once from its config.

    Args:
        hash: of the config; equal configs have equal hashes.
        cell: the hash without the seed, which all seeds of one config share.
        phase: dense | sparse.
        model, task, pattern: their names.
        target_sparsity: of the pattern; None for a dense run, and where the pattern's parts differ.
        seed: of the run.
        precision: fp32 | bf16 | fp16.
        criterion, scheduler: names that all pruners share; `mixed` where they differ, None for a dense run.
        recipe: {name, source} of the hyper-parameters.
        overrides: as typed.
    """

    hash: str
    cell: str
    phase: str
    model: str
    task: str
    pattern: str
    target_sparsity: float | None = None
    seed: int = 0
    precision: str | None = None
    criterion: str | None = None
    scheduler: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name for people: `mrpc bert_mini 4x1 seed 0`; the overrides if they make no valid config."""
        if not self.hash:
            return " ".join(self.overrides)
        return f"{self.task} {self.model} {self.pattern} seed {self.seed}"

    @property
    def names(self) -> tuple[str, str, str]:
        """(phase, model, task)."""
        return self.phase, self.model, self.task

    def as_dict(self) -> dict[str, Any]:
        """Field name -> value, for JSON."""
        return {**asdict(self), "recipe": dict(self.recipe), "overrides": list(self.overrides)}


# Of a job that was refused before its phase was known: an empty text.
_SHAPES: dict[str, Any] = {"phase": Literal["sparse", "dense", ""], "recipe": Mapping[str, str | None]}
_FIELDS = tuple(field.name for field in fields(RunSpec))


def invalid_spec(overrides: list[str] | tuple[str, ...]) -> RunSpec:
    """The spec of overrides that make no valid config: it has no hash and no names."""
    return RunSpec("", "", "", "", "", "", overrides=tuple(overrides))


def is_described(values: Mapping[str, Any]) -> bool:
    """Whether a JSON object describes a run, perhaps with a damaged key; files of other programs do not."""
    return len({"hash", "cell", "phase", "model", "task", "pattern"} & values.keys()) > 1


def split_spec(values: Mapping[str, Any]) -> tuple[RunSpec, dict[str, Any]]:
    """The spec in the top level of a JSON object, and the object's other values.

    Raises:
        ValueError: a field that every run has is missing, or a value has another type than its field.
    """
    check_fields(values, RunSpec, _SHAPES)
    own = {key: value for key, value in values.items() if key in _FIELDS}
    spec = RunSpec(**{**own, "overrides": tuple(own.get("overrides", ()))})
    return spec, {key: value for key, value in values.items() if key not in _FIELDS}
