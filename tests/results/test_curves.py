"""Metrics over steps and their band over seeds, compared with an independent computation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydraprune.results.curves import POINTS, Band, History, band, read_history

LOSS, SCORE = "train/loss", "eval/f1"


def written(folder: Path, *lines: Any) -> History:
    """What is read of these lines; text as it is, anything else as JSON."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "metrics.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return read_history(folder)


def test_values_are_read_by_name(tmp_path: Path) -> None:
    lines = [{"step": 10, LOSS: 0.5, "train/lr": 1e-3}, {"step": 20, LOSS: 1}, {"step": 20, "epoch": 1, SCORE: 0.75}]
    found = written(tmp_path, *lines)
    assert found == {
        LOSS: [(10, 0.5), (20, 1.0)],
        "train/lr": [(10, 1e-3)],
        "epoch": [(20, 1.0)],
        SCORE: [(20, 0.75)],
    }
    assert all(type(value) is float for values in found.values() for _, value in values)


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert read_history(tmp_path) == {}
    assert read_history(tmp_path / "no" / "such") == {}
    (tmp_path / "metrics.jsonl").mkdir()
    assert read_history(tmp_path) == {}


@pytest.mark.parametrize("cut", range(1, len('{"step": 20, "train/loss": 0.25}')))
def test_an_incomplete_line_is_skipped(cut: int, tmp_path: Path) -> None:
    line = '{"step": 20, "train/loss": 0.25}'
    assert written(tmp_path, {"step": 10, LOSS: 0.5}, line[:-cut]) == {LOSS: [(10, 0.5)]}
    assert written(tmp_path, line[:-cut], {"step": 30, LOSS: 0.1}) == {LOSS: [(30, 0.1)]}


def test_binary_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'\xff\xfe\x00\n{"step": 10, "train/loss": 0.5}\n\x00\x00')
    assert read_history(tmp_path) == {LOSS: [(10, 0.5)]}


NOT_FINITE = ["null", '"0.5"', "[0.5]", "{}", "true", "false", "NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400]


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_value_that_is_not_finite_is_skipped_but_not_its_line(value: str, tmp_path: Path) -> None:
    assert written(tmp_path, f'{{"step": 10, "train/loss": {value}, "eval/f1": 0.5}}') == {SCORE: [(10, 0.5)]}


@pytest.mark.parametrize("line", ["", "null", "5", "[]", '"step"', '[{"step": 1}]', '{"train/loss": 1}'])
def test_a_line_that_is_not_an_object_with_a_step_is_skipped(line: str, tmp_path: Path) -> None:
    assert written(tmp_path, line, {"step": 10, LOSS: 0.5}) == {LOSS: [(10, 0.5)]}


@pytest.mark.parametrize("step", ["null", '"7"', "1.5", "true", "NaN", "Infinity", "[1]"])
def test_a_step_that_is_not_a_whole_number_is_skipped(step: str, tmp_path: Path) -> None:
    assert written(tmp_path, f'{{"step": {step}, "train/loss": 1}}', {"step": 10, LOSS: 0.5}) == {LOSS: [(10, 0.5)]}


def test_of_repeated_names_and_steps_the_last_one_counts(tmp_path: Path) -> None:
    """A resumed run may repeat steps."""
    found = written(tmp_path, '{"step": 10, "train/loss": 1, "train/loss": 2}', {"step": 20, LOSS: 3})
    assert found == {LOSS: [(10, 2.0), (20, 3.0)]}
    again = written(tmp_path, {"step": 10, LOSS: 1}, {"step": 20, LOSS: 5}, {"step": 20, LOSS: 3})
    assert band([again], LOSS) == [Band(10, 1.0, 1.0, 1.0, 1), Band(20, 3.0, 3.0, 3.0, 1)]


def test_no_runs_and_no_such_name() -> None:
    assert band([], LOSS) == []
    assert band([{}, {SCORE: [(1, 0.5)]}], LOSS) == []
    assert band([{}, {SCORE: [(1, 0.5)]}], SCORE) == [Band(1, 0.5, 0.5, 0.5, 1)]


def test_a_loss_is_averaged_and_a_score_is_the_last() -> None:
    history = {name: [(step, float(step)) for step in (10, 20, 30, 40)] for name in (LOSS, SCORE)}
    assert band([history], LOSS, points=2) == [Band(20, 15.0, 15.0, 15.0, 1), Band(40, 35.0, 35.0, 35.0, 1)]
    assert band([history], SCORE, points=2) == [Band(20, 20.0, 20.0, 20.0, 1), Band(40, 40.0, 40.0, 40.0, 1)]


# Runs of one config: values at steps; a run may end early.
VALUES = st.floats(-1e6, 1e6, allow_subnormal=False) | st.sampled_from([0.1, 1 / 3, 0.7])
RUNS = st.lists(st.dictionaries(st.integers(0, 400), VALUES, min_size=1, max_size=60), min_size=1, max_size=5)
LONG = st.tuples(st.integers(1, 2000), st.integers(1, 3), st.integers(1, 20)).map(
    lambda drawn: [
        {step * drawn[2]: math.sin(step * (run + 1)) for step in range(1, drawn[0] - run)} for run in range(drawn[1])
    ]
)


def histories(runs: list[dict[int, float]], name: str) -> list[History]:
    return [{name: sorted(run.items())} for run in runs]


@given(RUNS | LONG, st.sampled_from([LOSS, SCORE]), st.integers(1, 30) | st.just(POINTS))
def test_properties_of_every_band(runs: list[dict[int, float]], name: str, points: int) -> None:
    found = band(histories(runs, name), name, points)
    steps = sorted({step for run in runs for step in run})
    assert len(found) <= points
    assert [at.step for at in found] == sorted({at.step for at in found})
    assert {at.step for at in found} <= set(steps)
    assert ([at.step for at in found] or [None])[-1] == (steps or [None])[-1]
    before = -1
    for at in found:
        near = [{step: value for step, value in run.items() if before < step <= at.step} for run in runs]
        values = [value for run in near for value in run.values()]
        assert at.n == sum(bool(run) for run in near) >= 1
        assert at.low <= at.mean <= at.high
        assert min(values) - 1e-9 <= at.low
        assert at.high <= max(values) + 1e-9
        before = at.step


@given(RUNS, st.sampled_from([LOSS, SCORE]))
def test_few_points_are_the_mean_minimum_and_maximum(runs: list[dict[int, float]], name: str) -> None:
    steps = sorted({step for run in runs for step in run})
    found = band(histories(runs, name), name, points=max(len(steps), 1))
    assert [at.step for at in found] == steps
    for at in found:
        values = [run[at.step] for run in runs if at.step in run]
        assert (at.low, at.high, at.n) == (min(values), max(values), len(values))
        assert at.mean == pytest.approx(sum(values) / len(values), rel=1e-9, abs=1e-9)


@given(RUNS | LONG, st.randoms(use_true_random=False), st.sampled_from([LOSS, SCORE]))
def test_the_order_of_runs_does_not_matter(runs: list[dict[int, float]], chance: Any, name: str) -> None:
    mixed = list(runs)
    chance.shuffle(mixed)
    assert band(histories(mixed, name), name, 10) == band(histories(runs, name), name, 10)


def test_the_number_of_points_is_bounded() -> None:
    long = {LOSS: [(step, 1.0) for step in range(1, 10_001)]}
    found = band([long], LOSS)
    assert POINTS // 2 < len(found) <= POINTS
    assert found[-1].step == 10_000
