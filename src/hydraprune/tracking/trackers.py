"""Who takes note? Trackers satisfy `hydraprune.tracking.RunTracker`."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hydraprune.tracking.base import About, Outcome, RunTracker

log = logging.getLogger(__name__)


class Silent:
    """Takes no note."""

    def start(self, about: About) -> None:
        pass

    def log(self, values: Mapping[str, float], step: int) -> None:
        pass

    def end(self, outcome: Outcome) -> None:
        pass

    def close(self, error: BaseException | None) -> None:
        pass


class JsonLines(Silent):
    """One JSON object a line: `step` and the values. Numbers that JSON has no word for become null.

    Args:
        kept: bytes of the file that stay, since an earlier piece of the run wrote them; what follows is cut off.

    Raises:
        OSError: the file cannot be written, or is not there any more.
    """

    def __init__(self, path: Path, kept: int = 0) -> None:
        self._path = path
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self._file.truncate(kept)

    def log(self, values: Mapping[str, float], step: int) -> None:
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        # A file that nobody can find any more takes lines without a word.
        if not self._path.is_file() or not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno())):
            raise OSError(errno.ENOENT, "was removed or replaced while the run wrote it", str(self._path))
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()

    def close(self, error: BaseException | None = None) -> None:
        self._file.close()


class ProgressBar(Silent):
    """Loss, sparsity, last metrics and time left on a terminal; a line per evaluation in the log.

    Args:
        shown: whether there is a bar; None: where somebody watches, so not in a file or a pipe.
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
        # What is logged from here on must not cut the bar in pieces.
        self._bar.close()

    def close(self, error: BaseException | None) -> None:
        self._bar.close()


class Several:
    """All of `trackers`, in turn."""

    def __init__(self, trackers: Sequence[RunTracker]) -> None:
        self._trackers = tuple(trackers)

    def start(self, about: About) -> None:
        for tracker in self._trackers:
            tracker.start(about)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for tracker in self._trackers:
            tracker.log(values, step)

    def end(self, outcome: Outcome) -> None:
        for tracker in self._trackers:
            tracker.end(outcome)

    def close(self, error: BaseException | None) -> None:
        for tracker in self._trackers:
            tracker.close(error)
