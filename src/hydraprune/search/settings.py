"""The settings of a study, as conf/study has them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.bench.options import EXTRAS, PRECISIONS
from hydraprune.errors import UserError, one_line

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

    Raises:
        UserError: a value is out of range, or the engine is not there.
    """

    batch: int = 8
    length: int = 128
    threads: int = 1
    engine: str = "hydraprune"

    def __post_init__(self) -> None:
        for key in ("batch", "length", "threads"):
            if (value := getattr(self, key)) < 1:
                raise UserError("must be at least 1", key=key, value=value)
        if self.engine not in PRECISIONS:
            raise UserError("no such engine", key="engine", value=self.engine, cure=f"one of {', '.join(PRECISIONS)}")
        if self.engine in EXTRAS and importlib.util.find_spec(self.engine) is None:
            cure = f"pip install 'hydraprune[{EXTRAS[self.engine]}]'"
            raise UserError("is not installed", key="engine", value=self.engine, cure=cure)

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
        self._check_classes()

    def _check_classes(self) -> None:
        from optuna.pruners import BasePruner
        from optuna.samplers import BaseSampler

        try:
            made = self.sampler(seed=self.seed)
        except Exception as error:  # a class of the user's own may raise anything
            raise UserError(
                f"makes no sampler from a seed ({one_line(error)})",
                key="sampler",
                cure="name one of optuna.samplers, with `_partial_: true`",
            ) from None
        if not isinstance(made, BaseSampler):
            raise UserError("is no sampler of Optuna", key="sampler", value=type(made).__name__)
        if self.pruner is not None and not isinstance(self.pruner, BasePruner):
            raise UserError("is no pruner of Optuna", key="pruner", value=self.pruner, cure="null stops no trial")

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives; a single word counts as a list of one."""
        return (self.objectives,) if isinstance(self.objectives, str) else tuple(self.objectives)
