"""The tracker contract: what a tracker is called with, and when.

A tracker of your own is a class with the methods of `RunTracker`; derive it from `BaseTracker` to write only those
that it needs, and name it in a config: `tracker: {_target_: mine.Csv}`. `Several` runs more than one.
"""

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
    """The run to be tracked, known when it starts or resumes.

    Args:
        spec: its description.
        config: as composed, in plain dicts and lists, without secrets.
        directory: the run's folder.
        steps: optimizer steps of the whole training.
        done: of these, the steps done before the run was interrupted.
        requested: False for a dense model that is trained only because a sparse run needs it.
    """

    spec: RunSpec
    config: Mapping[str, Any]
    directory: Path
    steps: int
    done: int = 0
    requested: bool = True

    @property
    def id(self) -> str:
        """The run's hash, the same each time it is started."""
        return self.spec.hash

    @property
    def group(self) -> str:
        """The name of the cell: all seeds of one config."""
        return f"{self._name} {self.spec.cell}"

    @property
    def job_type(self) -> str:
        """dense | sparse."""
        return self.spec.phase

    @property
    def name(self) -> str:
        """A name for people: `mrpc bert_mini 4x1 0.9 seed 0`."""
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
    """A crop of one layer's mask.

    Args:
        weight: name of the layer's weight.
        kept: bool [rows, columns], True where a weight is kept.
    """

    weight: str
    kept: NDArray[bool_]


@dataclass(frozen=True)
class Outcome:
    """The results of a finished run.

    Args:
        report: the contents of its report.json.
        model: folder of the saved model.
        masks: reads a mask crop for each pruner, by its name: `4x1`, `2:4`; `attention`, `ffn` of a mixed pattern.
    """

    report: Mapping[str, Any]
    model: Path
    masks: Callable[[], Mapping[str, Mask]] = dict


class RunTracker(Protocol):
    """Tracks one run: `start` is called first, then `log`, `end` if the run finishes, and `close` last.

    All calls come from one thread, which is not the main one. A tracker cannot end or delay a run:
    if it raises, or does not return in time, one warning is logged and the run continues without it
    (only `close` is still called). Two more members are optional: `patience`, seconds that `end`
    and `close` may take on top of half a minute, and `abandon()`, called from another thread when
    a call did not return in time, to interrupt what it waits for.
    """

    def start(self, about: About) -> None: ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Metrics after optimizer step `step`. A resumed run may repeat steps."""

    def end(self, outcome: Outcome) -> None: ...

    def close(self, error: BaseException | None) -> None:
        """The run is over; `error` is what ended it early, if anything did."""


class BaseTracker:
    """A tracker that does nothing; a base class for trackers that need only some of the methods."""

    def start(self, about: About) -> None:
        pass

    def log(self, values: Mapping[str, float], step: int) -> None:
        pass

    def end(self, outcome: Outcome) -> None:
        pass

    def close(self, error: BaseException | None) -> None:
        pass
