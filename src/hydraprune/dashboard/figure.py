"""A figure of the page: what it shows, and the room that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydraprune.dashboard.charts import Spec
from hydraprune.dashboard.comparisons import Row

# Pixels to reserve in addition to a figure's own height: for an axis with its title, for a legend above it, and for
# the title below a mask. A few more than needed, for wider fonts.
_AXIS, _LEGEND, _MASK_TITLE = 66, 26, 21


@dataclass(frozen=True)
class Figure:
    """One figure.

    Args:
        id: of its HTML element; also the name of its files.
        title: of the figure.
        caption: how to read it.
        summary: its content in words, for screen readers.
        rows: the data; filtered by task, model, pattern and metric.
        dense: data of dense models, which no filter hides.
        pattern: of a figure about a single pattern.
        metric, workload: those that are shown first, if the rows have several.
        shape: height / width, if it is fixed.
    """

    id: str
    title: str
    caption: str
    summary: str
    spec: Spec
    rows: Sequence[Row]
    dense: Sequence[Row] = ()
    pattern: str | None = None
    metric: str | None = None
    workload: str | None = None
    shape: float | None = None
    kind: str = "wide"

    @property
    def room(self) -> str:
        """CSS for the room that it takes before it is drawn, so that drawing it moves nothing."""
        if self.shape is not None:
            return f"--room: calc({self.shape:.4f} * 100% + {_MASK_TITLE}px)"
        height = self.spec["height"]
        if isinstance(height, dict):
            height = height["step"] * len({row.get("name", row.get("role")) for row in self.rows})
        encodings = [part.get("encoding", {}) for part in (self.spec, *self.spec.get("layer", ()))]
        legend = any(channel.get("legend") for encoding in encodings for channel in _channels(encoding))
        return f"--room: {height + _AXIS + (_LEGEND if legend else 0)}px"

    @property
    def measured(self) -> bool:
        """Whether its rows are of a metric or workload that the reader chooses."""
        return any("metric" in row for row in self.rows)


def _channels(encoding: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The channels of an encoding that are single ones: not tooltips or details."""
    return (channel for channel in encoding.values() if isinstance(channel, dict))
