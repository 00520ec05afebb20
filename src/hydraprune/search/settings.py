"""The settings of a study, as conf/study has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.errors import UserError

SCORE, SPARSITY, LATENCY = "score", "sparsity", "latency"
OBJECTIVES = (SCORE, SPARSITY, LATENCY)


@dataclass(frozen=True)
class Latency:
    """How the latency of a trial's model is measured, by `hydraprune bench` in fp32.

    Args:
        batch: texts of a call.
        length: tokens of each text.
        threads: of the engine.
        engine: `hydraprune`, `torch`, `onnxruntime` or `openvino`.
    """

    batch: int = 8
    length: int = 128
    threads: int = 1
    engine: str = "hydraprune"

    def words(self, model: str, out: str) -> list[str]:
        """The words of the command after `hydraprune`."""
        options = {"engines": self.engine, "precisions": "fp32", "out": out}
        options |= {key: str(getattr(self, key)) for key in ("batch", "length", "threads")}
        return ["bench", model, *(word for key, value in options.items() for word in (f"--{key}", value))]


@dataclass(frozen=True)
class OptunaStudy:
    """A study of Optuna.

    Args:
        sampler: makes an Optuna sampler, given `seed`.
        pruner: of Optuna; None: no trial is stopped early. Only with one objective.
        latency: how it is measured, where it is an objective.
        trials: that have finished or were stopped early once the study is done, those of earlier commands included.
        objectives: one or two of `score` (the task's first metric), `sparsity` (of the prunable weights) and `latency`.
        seed: of the sampler.
        storage: an address that Optuna knows, such as `sqlite:///study.db`; None: a journal file in the sweep's folder.
        name: of the study in its storage.

    Raises:
        UserError: a value that does not fit.
    """

    sampler: Callable[..., Any]
    pruner: Any = None
    latency: Latency = Latency()
    trials: int = 20
    objectives: Sequence[str] = (SCORE,)
    seed: int = 0
    storage: str | None = None
    name: str = "default"

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UserError("must be at least 1", key="trials", value=self.trials)
        if self.seed < 0:
            raise UserError("must be at least 0", key="seed", value=self.seed)
        names = self.names
        if not 1 <= len(names) <= 2 or len(set(names)) < len(names) or not set(names) <= set(OBJECTIVES):
            cure = f"one or two of {', '.join(OBJECTIVES)}"
            raise UserError("are not objectives of a study", key="objectives", value=list(names), cure=cure)

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives; a single word counts as a list of one."""
        return (self.objectives,) if isinstance(self.objectives, str) else tuple(self.objectives)
