"""Who takes note? Trackers satisfy `hydraprune.training.contracts.Tracker`."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hydraprune.training.contracts import Tracker

log = logging.getLogger(__name__)


class Silent:
    """Takes no note."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        pass

    def close(self) -> None:
        pass


class JsonLines:
    """One JSON object a line: `step` and the values. Numbers that JSON has no word for become null.

    Args:
        kept: bytes of the file that stay, since an earlier piece of the run wrote them; what follows is cut off.
    """

    def __init__(self, path: Path, kept: int = 0) -> None:
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self._file.truncate(kept)

    def log(self, values: Mapping[str, float], step: int) -> None:
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class ProgressBar:
    """Loss, sparsity, last metrics and time left on a terminal; a line per evaluation in the log.

    Args:
        steps: of the whole training, of which `done` are behind it.
        shown: whether there is a bar; None: where somebody watches, so not in a file or a pipe.
    """

    def __init__(self, steps: int, name: str, done: int = 0, shown: bool | None = None) -> None:
        self._steps, self._name = steps, name
        hidden = None if shown is None else not shown
        self._bar = tqdm(
            total=steps, initial=done, desc=name, unit="step", dynamic_ncols=True, mininterval=0.3, disable=hidden
        )
        self._shown: dict[str, str] = {}

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

    def close(self) -> None:
        self._bar.close()


class Several:
    """All of `trackers`, in turn."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = tuple(trackers)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for tracker in self._trackers:
            tracker.log(values, step)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()
