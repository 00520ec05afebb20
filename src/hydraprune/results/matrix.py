"""The results matrix: reports of runs grouped into cells, with the scores of all seeds. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hydraprune.data.metric_direction import is_error
from hydraprune.results.labels import Named, differences
from hydraprune.results.measurements import Measurement
from hydraprune.results.plan_file import Planned
from hydraprune.results.reference import Published, published
from hydraprune.results.report import RunReport
from hydraprune.results.run_spec import RunSpec
from hydraprune.results.statistics import Spread, mean_interval, spread

# Rows are in the order of the published table, other patterns at the end.
_PATTERNS = ("dense", "4x1", "2:4", "1xchannel", "mixed")


@dataclass(frozen=True)
class Score:
    """One metric of a cell, by seed.

    Args:
        sparse: of the final evaluation.
        dense: of the dense model that the run started from; empty for a dense cell.
        best: of the best epoch at the full target; optimistic, since it is chosen on the evaluation data.
    """

    metric: str
    sparse: Mapping[int, float]
    dense: Mapping[int, float]
    best: Mapping[int, float]

    @property
    def differences(self) -> dict[int, float]:
        """sparse - dense of the same seed."""
        return {seed: value - self.dense[seed] for seed, value in self.sparse.items() if seed in self.dense}

    @property
    def difference(self) -> Spread | None:
        """The spread of the paired differences."""
        return spread(list(self.differences.values()))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t-interval of the mean paired difference."""
        return mean_interval(list(self.differences.values()))

    @property
    def drop(self) -> float | None:
        """The relative drop as published: best sparse run / best dense run - 1. Of an error it is a rise."""
        paired = self.differences
        best = min if is_error(self.metric) else max
        dense = best((self.dense[seed] for seed in paired), default=0.0)
        return best(self.sparse[seed] for seed in paired) / dense - 1 if dense > 0 else None

    @property
    def mean_drop(self) -> float | None:
        """The relative drop of the means: mean of the sparse runs / mean of their dense runs - 1."""
        paired = self.differences
        total = sum(self.dense[seed] for seed in paired)
        return sum(self.sparse[seed] for seed in paired) / total - 1 if total > 0 else None


@dataclass(frozen=True)
class Cell:
    """All seeds of one config.

    Args:
        spec: of one of its runs; its seed has no meaning.
        differs: what distinguishes it from other cells of the same name, see `labels.differences`.
        ratio: zeros / weights of all Linear layers, heads included: the published column.
        prunable: zeros / weights of the pruned layers.
        scores: the headline metric first.
        finished, failed, missing: seeds.
        typed: overrides that make it another experiment than the published row.
        broken: seeds whose saved model does not have its pattern.
        measured: what benches measured of its runs.
    """

    spec: RunSpec
    recipe: str
    differs: str = ""
    ratio: Spread | None = None
    prunable: Spread | None = None
    scores: tuple[Score, ...] = ()
    finished: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    broken: tuple[int, ...] = ()
    typed: tuple[str, ...] = ()
    measured: tuple[Measurement, ...] = ()

    @property
    def label(self) -> str:
        """Its pattern, target, and what distinguishes it from others: `4x1 at 90%`."""
        target = "" if self.spec.target_sparsity is None else f" at {self.spec.target_sparsity * 100:.6g}%"
        return " ".join(filter(None, [f"{self.spec.pattern}{target}", self.differs]))

    @property
    def published(self) -> Published | None:
        """The published row that it reproduces, if there is one."""
        return published(self.spec.model, self.spec.task, self.spec.pattern, self.spec.target_sparsity)


def matrix(
    reports: Iterable[RunReport], planned: Iterable[Planned] = (), measured: Iterable[Measurement] = ()
) -> list[Cell]:
    """The cells of all reports, and of planned runs without a report.

    Args:
        reports: a hash that occurs twice counts once; a finished report wins.
        measured: what benches measured of the runs.
    """
    runs: dict[str, RunReport] = {}
    # In a fixed order: if two seeds or copies were typed differently, the overrides of the same one are used.
    for report in sorted(reports, key=lambda report: (not report.finished, report.spec.seed, repr(report))):
        if report.spec.cell:
            runs.setdefault(report.spec.hash, report)
    jobs = {job.spec.hash: job for job in sorted(planned, key=repr) if job.spec.cell}
    by_cell: dict[str, list[RunReport]] = {}
    for report in runs.values():
        by_cell.setdefault(report.spec.cell, []).append(report)
    wanted: dict[str, list[Planned]] = {}
    for job in jobs.values():
        wanted.setdefault(job.spec.cell, []).append(job)
    cells = [_cell(by_cell.get(key, []), wanted.get(key, [])) for key in {**by_cell, **wanted}]
    words = {key: _words(by_cell.get(key, []), wanted.get(key, [])) for key in {**by_cell, **wanted}}
    cells = [replace(cell, typed=tuple(filter(_changes_the_result, words[cell.spec.cell]))) for cell in cells]
    speeds: dict[str, list[Measurement]] = {}
    for found in measured:
        speeds.setdefault(found.cell, []).append(found)
    cells = [replace(cell, measured=tuple(speeds.get(cell.spec.cell, ()))) for cell in cells]
    named = [Named(_name(cell), cell.spec, words[cell.spec.cell], cell.spec.cell) for cell in cells]
    return sorted(
        (replace(cell, differs=differs) for cell, differs in zip(cells, differences(named), strict=True)), key=_order
    )


# Keys that name a published row, or that do not change its results.
_NAMING = ("matrix", "model", "task", "pattern", "experiment", "training.device")
_WITHOUT_EFFECT = ("runtime", "cache", "run", "tracker", "hydra", "hydra/launcher")


def _changes_the_result(word: str) -> bool:
    key = word.lstrip("+~").partition("=")[0]
    return key not in _NAMING and key.split(".")[0] not in _WITHOUT_EFFECT


def _cell(reports: Sequence[RunReport], jobs: Sequence[Planned]) -> Cell:
    first = reports[0] if reports else jobs[0]
    finished = sorted((r for r in reports if r.finished), key=lambda report: report.spec.seed)
    seeds = {report.spec.seed for report in finished}
    failed = {report.spec.seed for report in reports if report.status == "failed"} - seeds
    names = dict.fromkeys(name for report in finished for name in [report.metric or "", *report.final] if name)
    return Cell(
        spec=first.spec,
        recipe="" if not reports else str(reports[0].spec.recipe.get("source", "")),
        ratio=_sparsity(finished, "linear"),
        prunable=_sparsity(finished, "prunable"),
        scores=tuple(_score(name, finished) for name in names),
        finished=tuple(sorted(seeds)),
        failed=tuple(sorted(failed)),
        missing=tuple(sorted(({job.spec.seed for job in jobs} | {r.spec.seed for r in reports}) - seeds - failed)),
        broken=tuple(report.spec.seed for report in finished if report.pattern_ok is False),
    )


def _score(metric: str, reports: Sequence[RunReport]) -> Score:
    def by_seed(values: str) -> dict[int, float]:
        found = {report.spec.seed: (getattr(report, values) or {}).get(metric) for report in reports}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    return Score(metric, by_seed("final"), by_seed("dense"), by_seed("best"))


def _sparsity(reports: Sequence[RunReport], kind: str) -> Spread | None:
    return spread([float(report.sparsity[kind]) for report in reports if report.sparsity is not None])


def _words(reports: Sequence[RunReport], jobs: Sequence[Planned]) -> list[str]:
    typed = [*reports[0].spec.overrides] if reports else [*jobs[0].words]
    return [word for word in typed if word.partition("=")[0] not in ("seed", "sweep", "run.root", "plan")]


def _name(cell: Cell) -> tuple[object, ...]:
    return cell.spec.task, cell.spec.model, cell.spec.pattern, cell.spec.target_sparsity, cell.spec.phase


def _order(cell: Cell) -> tuple[object, ...]:
    place = _PATTERNS.index(cell.spec.pattern) if cell.spec.pattern in _PATTERNS else len(_PATTERNS)
    return (
        cell.spec.task,
        cell.spec.model,
        place,
        cell.spec.pattern,
        cell.spec.target_sparsity or 0.0,
        cell.differs,
        cell.spec.cell,
    )
