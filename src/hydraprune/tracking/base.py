"""What a tracker is told, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy import bool_
from numpy.typing import NDArray

from hydraprune.results.run_spec import RunSpec


@dataclass(frozen=True)
class About:
    """What is known of a run when it starts or resumes.

    Args:
        spec: the run's description.
        config: nested as composed, plain values.
        directory: the run's folder.
        steps: optimizer steps of the whole training, of which `done` were made before.
        done: see `steps`.
        asked: False for a dense model that is trained because a sparse run needs it.
    """

    spec: RunSpec
    config: Mapping[str, Any]
    directory: Path
    steps: int
    done: int = 0
    asked: bool = True

    @property
    def id(self) -> str:
        """The run's hash: the same whenever, wherever and however often it is started."""
        return self.spec.hash

    @property
    def group(self) -> str:
        """The name of the cell, which all seeds of one config share."""
        return f"{self._name} {self.spec.cell}"

    @property
    def job_type(self) -> str:
        """dense | sparse."""
        return self.spec.phase

    @property
    def name(self) -> str:
        """What a person calls the run."""
        return f"{self._name} seed {self.spec.seed}"

    @property
    def tags(self) -> tuple[str, ...]:
        """The names of its task, model, pattern, scheduler and criterion, each once."""
        spec = self.spec
        words = (spec.task, spec.model, spec.pattern, spec.scheduler, spec.criterion)
        return tuple(dict.fromkeys(word for word in words if word is not None))

    @property
    def _name(self) -> str:
        target = "" if self.spec.target_sparsity is None else f" {self.spec.target_sparsity:g}"
        return f"{self.spec.task} {self.spec.model} {self.spec.pattern}{target}"


@dataclass(frozen=True)
class Mask:
    """A part of one layer's mask.

    Args:
        weight: the layer's.
        kept: rows x columns of it, true where a weight is kept.
    """

    weight: str
    kept: NDArray[bool_]


@dataclass(frozen=True)
class Outcome:
    """What came of a run that finished.

    Args:
        report: as in its report.json.
        masks: reads one for each pruner, by its name: `4x1`, `2:4`; of a mixed pattern `attention`, `ffn`.
        model: folder of the saved model.
    """

    report: Mapping[str, Any]
    model: Path
    masks: Callable[[], Mapping[str, Mask]] = dict


class RunTracker(Protocol):
    """Follows one run. `start` comes first and `close` last; `end` only where the run finished.

    What any of them raises is told once, and the run goes on without the tracker. So it does where one does not come
    back in time. All are called in one thread that is not the main one. Two more are optional: `patience`, seconds that
    `end` and `close` may take besides half a minute, and `abandon()`, called from another thread when the tracker was
    given up, to get loose what it waits for.
    """

    def start(self, about: About) -> None: ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Values after the `step`-th optimizer step; a run that goes on after it was cut may repeat some."""

    def end(self, outcome: Outcome) -> None: ...

    def close(self, error: BaseException | None) -> None:
        """The run is over; `error` says what ended it too early."""
