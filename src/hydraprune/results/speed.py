"""Columns of speed for the results matrix: one for each setting that runs were measured in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from hydraprune.results.matrix import Cell
from hydraprune.results.measurements import Measurement, Setting


@dataclass(frozen=True)
class Speed:
    """How fast the models of a cell are: in fp32, which their scores are of, in the engine that is fastest.

    Args:
        seconds: median of a call; the mean over seeds.
        times: how many times as fast as the baseline of the bench; None without one.
        engine: with the folder of the model, if it is not the run's own: `hydraprune, model-slim`.
        seeds: of the runs that were measured.
    """

    seconds: float
    times: float | None
    engine: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class SpeedColumn:
    """The cells that were measured in one setting.

    Args:
        name: empty if there is one column; else a letter that tells it from the others.
        workload: of all its figures.
        cells: cell -> speed.
        baselines: `MODEL in ENGINE` for everything that its ratios are to.
    """

    name: str
    setting: Setting
    workload: str
    cells: Mapping[str, Speed]
    baselines: tuple[str, ...]

    @property
    def note(self) -> str:
        """What its figures are of, in one sentence."""
        text = f"ms: median of a call in fp32, in the fastest engine; {self.workload}, on {self.setting.text}."
        if self.baselines:
            text += f" x dense: times as fast as the fastest dense engine in fp32 ({' or '.join(self.baselines)})."
        return f"{self.name}: {text}" if self.name else text


def speed_columns(cells: Sequence[Cell]) -> list[SpeedColumn]:
    """A column for each setting; none if nothing was measured.

    The workload of a column is the one that most cells were measured on, the first one if there are several.
    """
    names = {found.run: cell.label for cell in cells for found in cell.measured}
    single = [found for cell in cells for found in cell.measured if found.precision == "fp32"]
    settings = sorted({found.setting for found in single})
    columns = []
    for number, setting in enumerate(settings):
        here = [found for found in single if found.setting == setting]
        workload = _most_measured(here)
        of_it = [found for found in here if found.workload == workload]
        by_cell: dict[str, list[Measurement]] = {}
        for found in of_it:
            by_cell.setdefault(found.cell, []).append(found)
        speeds = {cell: _fastest(mine) for cell, mine in by_cell.items()}
        name = _letter(number) if len(settings) > 1 else ""
        columns.append(SpeedColumn(name, setting, workload, speeds, _baselines(of_it, names)))
    return columns


def _most_measured(found: Sequence[Measurement]) -> str:
    cells = Counter(workload for workload, _ in dict.fromkeys((one.workload, one.cell) for one in found))
    return cells.most_common(1)[0][0]


def _fastest(found: Iterable[Measurement]) -> Speed:
    by_engine: dict[str, list[Measurement]] = {}
    for one in found:
        by_engine.setdefault(", ".join(filter(None, (one.engine, one.form))), []).append(one)
    speeds = []
    for engine, seeds in by_engine.items():
        times = [one.times_fp32 for one in seeds if one.times_fp32 is not None]
        numbers = tuple(sorted({one.seed for one in seeds}))
        speeds.append(Speed(fmean(one.seconds for one in seeds), fmean(times) if times else None, engine, numbers))
    return min(speeds, key=lambda speed: speed.seconds)


def _baselines(found: Iterable[Measurement], names: Mapping[str, str]) -> tuple[str, ...]:
    used = [one.baseline for one in found if one.baseline is not None and one.times_fp32 is not None]
    return tuple(dict.fromkeys(baseline.named(names) for baseline in used))


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number + 1)
