"""The arithmetic of the results matrix, compared with numpy and scipy."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from results_helpers import job, report

from hydraprune.results.matrix import Cell, Score, matrix
from hydraprune.results.report import RunReport
from hydraprune.results.run_spec import invalid_spec
from hydraprune.results.statistics import mean_interval, spread
from hydraprune.results.tables import as_json, comma_separated, markdown

SPARSE = {0: 0.8610, 1: 0.8722, 2: 0.8571, 3: 0.8655, 4: 0.8604}
DENSE = {0: 0.8619, 1: 0.8752, 2: 0.8600, 4: 0.8500}


def only(reports: list[RunReport], *jobs: Any) -> Cell:
    (cell,) = matrix(reports, jobs)
    return cell


def with_dense(seed: int, sparse: float | None, dense: float | None, **changes: Any) -> RunReport:
    return report(seed, sparse, dense={"accuracy": dense, "run": f"outputs/dense{seed}"}, **changes)


def test_all_values_of_a_cell() -> None:
    """Seed 3 has no dense score: it counts for the mean of the sparse runs, but for no difference."""
    cell = only([with_dense(seed, value, DENSE.get(seed)) for seed, value in SPARSE.items()])
    (score,) = cell.scores
    paired = [0, 1, 2, 4]
    ours, theirs = (np.array([values[seed] for seed in paired]) for values in (SPARSE, DENSE))
    difference = ours - theirs
    interval = scipy.stats.ttest_1samp(difference, 0.0).confidence_interval(0.95)

    assert dict(score.sparse) == SPARSE
    assert dict(score.dense) == DENSE
    assert score.differences == pytest.approx(dict(zip(paired, difference, strict=True)))
    found = score.difference
    assert found is not None
    assert (found.n, found.mean, found.max) == (4, pytest.approx(difference.mean()), pytest.approx(difference.max()))
    assert found.sd == pytest.approx(difference.std(ddof=1))
    assert score.interval == pytest.approx((interval.low, interval.high))
    assert score.drop == pytest.approx(ours.max() / theirs.max() - 1)
    assert score.mean_drop == pytest.approx(ours.mean() / theirs.mean() - 1)
    assert cell.finished == (0, 1, 2, 3, 4)
    assert cell.ratio is not None
    assert cell.ratio.mean == pytest.approx(0.88)
    assert cell.prunable is not None
    assert cell.prunable.mean == pytest.approx(0.9)


@given(st.lists(st.integers(0, 408).map(lambda hits: hits / 408), min_size=1, max_size=12))
def test_spread_and_interval(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    assert (found.n, found.max) == (len(values), max(values))
    assert found.mean == pytest.approx(np.mean(values))
    interval = mean_interval(values)
    if len(values) == 1:
        assert found.sd is None
        assert interval is None
        return
    sd = float(np.std(values, ddof=1))
    assert found.sd == pytest.approx(sd, abs=1e-12)
    reach = scipy.stats.t.isf(0.025, len(values) - 1) * sd / math.sqrt(len(values))
    assert interval == pytest.approx((np.mean(values) - reach, np.mean(values) + reach), abs=1e-12)
    if sd > 1e-9:
        assert interval == pytest.approx(tuple(scipy.stats.ttest_1samp(values, 0.5).confidence_interval(0.95)))


def test_no_values_have_no_statistics() -> None:
    assert spread([]) is None
    assert mean_interval([]) is None


def test_a_single_seed_has_no_interval() -> None:
    (score,) = only([with_dense(0, 0.5, 0.4)]).scores
    assert score.interval is None
    assert score.difference is not None
    assert score.difference.sd is None
    assert score.drop == pytest.approx(0.25)


def test_a_dense_score_of_zero_has_no_drop() -> None:
    (score,) = only([with_dense(0, 0.5, 0.0)]).scores
    assert (score.drop, score.mean_drop) == (None, None)


def test_a_score_that_is_not_finite_does_not_count() -> None:
    cell = only([with_dense(0, None, 0.4), with_dense(1, 0.5, 0.4), with_dense(2, 0.6, None)])
    (score,) = cell.scores
    assert dict(score.sparse) == {1: 0.5, 2: 0.6}
    assert score.differences == pytest.approx({1: 0.1})
    assert cell.finished == (0, 1, 2)
    (score,) = only([with_dense(0, None, 0.4)]).scores
    assert (dict(score.sparse), score.drop, score.interval, score.difference) == ({}, None, None, None)


def test_a_dense_cell_has_no_differences() -> None:
    cell = only([report(seed, 0.5, phase="dense", pattern="dense", target_sparsity=None) for seed in (0, 1)])
    (score,) = cell.scores
    assert (score.difference, score.interval, score.drop) == (None, None, None)
    assert cell.published is None


def test_the_best_epoch_is_separate() -> None:
    (score,) = only([report(0, 0.5, best={"accuracy": 0.75}), report(1, 0.6, best={"accuracy": None})]).scores
    assert dict(score.best) == {0: 0.75}
    assert dict(score.sparse) == {0: 0.5, 1: 0.6}


def test_the_headline_metric_comes_first() -> None:
    cell = only([report(0, {"accuracy": 0.5, "f1": 0.75}, metric="f1")])
    assert [score.metric for score in cell.scores] == ["f1", "accuracy"]


def test_planned_runs_without_a_report_are_missing() -> None:
    reports = [
        report(0),
        report(1, status="failed", error="not finite"),
        report(2, status="started"),
        # Seed 4 failed once and was finished later: in another folder, with the same hash.
        report(4, status="failed", error="disk full"),
        report(4),
    ]
    cell = only(reports, *(job(seed) for seed in range(5)))
    assert (cell.finished, cell.failed, cell.missing) == ((0, 4), (1,), (2, 3))
    nothing = only([], job(0), job(1))
    assert (nothing.finished, nothing.failed, nothing.missing) == ((), (), (0, 1))
    assert nothing.scores == ()
    refused_without_a_config = RunReport(invalid_spec(()), "failed", error="no such key")
    assert only([refused_without_a_config, report(0)], job(0, hash="", cell="", refused="no such key")).finished == (0,)


def test_a_broken_pattern_is_listed() -> None:
    assert only([report(0), report(1, pattern_ok=False)]).broken == (1,)


def test_cells_of_one_name_are_distinguished_and_not_averaged() -> None:
    shared = ["model=tiny", "pattern=4x1"]
    slow, fast = matrix(
        [
            report(0, 0.25, cell="a" * 12, overrides=[*shared, "optimizer.lr=0.1", "seed=0"]),
            report(1, 0.5, cell="a" * 12, overrides=[*shared, "optimizer.lr=0.1", "seed=1"]),
            report(0, 0.75, cell="b" * 12, overrides=[*shared, "optimizer.lr=0.2", "seed=0"]),
        ]
    )
    assert (slow.differs, fast.differs) == ("optimizer.lr=0.1", "optimizer.lr=0.2")
    assert [dict(cell.scores[0].sparse) for cell in (slow, fast)] == [{0: 0.25, 1: 0.5}, {0: 0.75}]


@pytest.mark.parametrize("words", [("", ""), ("", "lr=1"), ("lr=1", "lr=1"), ("lr=1", "lr=1", "lr=2")])
def test_cells_with_equal_overrides_are_distinguished_by_their_hash(words: tuple[str, ...]) -> None:
    """The default of a key may have changed between two runs."""
    reports = [report(cell=letter * 12, overrides=w.split()) for letter, w in zip("abc", words, strict=False)]
    labels = [cell.differs for cell in matrix(reports)]
    assert len(set(labels)) == len(words)
    assert all(labels)


def test_a_label_does_not_repeat_the_name() -> None:
    """One of two learning rates was typed with its pattern, the other came from an experiment."""
    cells = matrix(
        [
            report(cell="a" * 12, overrides=["pattern=4x1", "model=tiny", "task=toy", "optimizer.lr=0.1"]),
            report(cell="b" * 12, overrides=["experiment=fast"]),
            report(cell="c" * 12, pattern="2:4", target_sparsity=0.5, overrides=["pattern=2of4", "seed=0"]),
            report(cell="d" * 12, pattern="2:4", target_sparsity=0.5, overrides=["optimizer.lr=0.2"]),
        ]
    )
    assert [cell.label for cell in cells] == [
        "4x1 at 90% experiment=fast",
        "4x1 at 90% optimizer.lr=0.1",
        "2:4 at 50% cccccc",
        "2:4 at 50% optimizer.lr=0.2",
    ]


def test_cells_of_different_names_have_no_additions() -> None:
    names: list[dict[str, Any]] = [
        {}, {"target_sparsity": 0.5}, {"pattern": "2:4"}, {"model": "bert_mini"}, {"task": "sst2"},
        {"pattern": "mixed", "target_sparsity": None}, {"phase": "dense", "pattern": "dense", "target_sparsity": None},
    ]  # fmt: skip
    cells = matrix([report(cell=f"{i:012d}", overrides=[f"{i}"], **name) for i, name in enumerate(names)])
    assert [cell.differs for cell in cells] == [""] * len(names)
    toy = [cell.spec.pattern for cell in cells if (cell.spec.task, cell.spec.model) == ("toy", "tiny")]
    assert toy == ["dense", "4x1", "4x1", "2:4", "mixed"]


_SCORES = st.one_of(st.none(), st.integers(0, 64).map(lambda hits: hits / 64))
_RUNS = st.dictionaries(
    st.tuples(st.sampled_from(["4x1", "2:4", "mixed", "dense"]), st.sampled_from(["1e-3", "1e-4"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["finished", "finished", "failed", "started"]), _SCORES, _SCORES),
    max_size=10,
)


def made(runs: dict[tuple[str, str, int], tuple[str, float | None, float | None]]) -> list[RunReport]:
    return [
        report(
            seed,
            {"accuracy": sparse, "f1": dense},
            cell=f"{pattern}{lr}",
            status=status,
            pattern=pattern,
            phase="dense" if pattern == "dense" else "sparse",
            target_sparsity=None if pattern in ("mixed", "dense") else 0.5,
            overrides=[f"pattern={pattern}", f"optimizer.lr={lr}", f"seed={seed}"],
            recipe={"name": "r", "source": "ours" if seed else "published"},
            dense=None if pattern == "dense" else {"accuracy": dense, "f1": sparse, "run": "x"},
        )
        for (pattern, lr, seed), (status, sparse, dense) in runs.items()
    ]


@given(_RUNS, st.randoms(use_true_random=False))
def test_the_order_of_reports_does_not_matter_and_copies_count_once(runs: Any, shuffled: random.Random) -> None:
    reports = made(runs)
    cells = matrix(reports)
    again = [*reports, *(shuffled.sample(reports, len(reports) // 2))]
    shuffled.shuffle(again)
    assert matrix(again) == cells
    for tell in (markdown, comma_separated, as_json):
        assert tell(matrix(again)) == tell(cells)
    finished = {seed for (_, _, seed), (status, *_) in runs.items() if status == "finished"}
    assert {seed for cell in cells for seed in cell.finished} == finished


@given(_RUNS)
def test_a_finished_run_wins_over_its_failed_copy(runs: Any) -> None:
    reports = made(runs)
    failed = [
        report(r.spec.seed, cell=r.spec.cell, status="failed", pattern=r.spec.pattern) for r in reports if r.finished
    ]
    assert [cell.finished for cell in matrix([*failed, *reports])] == [cell.finished for cell in matrix(reports)]
    assert all(not set(cell.failed) & set(cell.finished) for cell in matrix([*failed, *reports]))


def test_the_drop_of_an_error_is_a_rise_of_the_lowest() -> None:
    score = Score("perplexity", {0: 12.0, 1: 15.0}, {0: 10.0, 1: 11.0}, {})
    assert score.drop == pytest.approx(0.2)
    assert score.mean_drop == pytest.approx(27 / 21 - 1)
    assert Score("f1", dict(score.sparse), dict(score.dense), {}).drop == pytest.approx(15 / 11 - 1)
