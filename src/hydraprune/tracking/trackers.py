"""The trackers besides W&B: none, metrics.jsonl, the progress bar, and several at once."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import IO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hydraprune.tracking.base import About, BaseTracker, Outcome, RunTracker

log = logging.getLogger(__name__)


class Silent(BaseTracker):
    """No tracker: `tracker=none`."""


class JsonLines(BaseTracker):
    """Writes one JSON object per line: `step` and the values; NaN and inf become null.

    Args:
        kept: bytes of the file to keep, written before the run was interrupted; what follows is cut off.

    Raises:
        OSError: the file cannot be written, or was removed.
    """

    def __init__(self, path: Path, kept: int = 0) -> None:
        self._path = path
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self._file.truncate(kept)

    def log(self, values: Mapping[str, float], step: int) -> None:
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        # Writing to a removed file raises no error.
        if not self._path.is_file() or not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno())):
            raise OSError(errno.ENOENT, "was removed or replaced while the run wrote it", str(self._path))
        try:
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            self._file.flush()
        except OSError as error:  # a write to an open file names none
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def close(self, error: BaseException | None = None) -> None:
        # On a full disk what is still buffered fails again, and the first error is on its way.
        with nullcontext() if error is None else suppress(OSError):
            self._file.close()


class ProgressBar(BaseTracker):
    """A progress bar with loss, sparsity, the last metrics and the time left; logs a line per evaluation.

    Args:
        shown: whether to show the bar; None: if stderr is a terminal.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self._hidden = None if shown is None else not shown
        self._shown: dict[str, str] = {}
        self._bar = tqdm(disable=True)

    def start(self, about: About) -> None:
        self._steps, self._name = about.steps, about.name
        self._bar = tqdm(
            total=about.steps,
            initial=about.done,
            desc=about.name,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.3,
            disable=self._hidden,
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        if "train/loss" in values:
            self._shown["loss"] = f"{values['train/loss']:.4g}"
        if "sparsity/global" in values:
            self._shown["sparsity"] = f"{values['sparsity/global']:.3f}"
        metrics = {key.removeprefix("eval/"): f"{v:.4f}" for key, v in values.items() if key.startswith("eval/")}
        self._shown.update(metrics)
        self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update(step - self._bar.n)
        if metrics:
            with nullcontext() if self._bar.disable else logging_redirect_tqdm():
                shown = ", ".join(f"{name} {value}" for name, value in self._shown.items())
                log.info("%s epoch %g, step %d of %d: %s", self._name, values["epoch"], step, self._steps, shown)

    def end(self, outcome: Outcome) -> None:
        # Or log messages from now on would be printed into the bar.
        self._bar.close()

    def close(self, error: BaseException | None) -> None:
        self._bar.close()


class Several:
    """Several trackers at once.

    In a config, `trackers` is a list of nodes; a run calls each tracker in a thread of its own:

        tracker:
          _target_: hydraprune.tracking.Several
          trackers:
            - {_target_: hydraprune.tracking.WandB, mode: offline}
            - {_target_: mine.Csv, path: metrics.csv}
    """

    def __init__(self, trackers: Sequence[RunTracker]) -> None:
        self.trackers = tuple(trackers)

    def start(self, about: About) -> None:
        for tracker in self.trackers:
            tracker.start(about)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for tracker in self.trackers:
            tracker.log(values, step)

    def end(self, outcome: Outcome) -> None:
        for tracker in self.trackers:
            tracker.end(outcome)

    def close(self, error: BaseException | None) -> None:
        with ExitStack() as stack:  # all are closed, even if one raises
            for tracker in reversed(self.trackers):
                stack.callback(tracker.close, error)
