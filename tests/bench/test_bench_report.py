"""The report of a bench: statistics, ratios, JSON there and back, and the tables."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_helpers import side, small_report, timing
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hydraprune.bench import read_bench
from hydraprune.bench.command import add_arguments, write_bench
from hydraprune.bench.statistics import distribution, with_ratios
from hydraprune.bench.tables import markdown, terminal
from hydraprune.errors import UserError
from hydraprune.results.bench_report import BenchReport, Distribution, Failure, Machine, SideResult, TaskFigures, Timing

SECONDS = st.floats(1e-6, 100)
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=5)


@given(st.lists(SECONDS, min_size=1, max_size=50))
def test_a_distribution_is_that_of_numpy(seconds: list[float]) -> None:
    made = distribution(seconds)
    expected = np.percentile(seconds, [50, 90, 95, 99])
    assert [made.p50, made.p90, made.p95, made.p99] == pytest.approx(list(expected))
    assert made.mean == pytest.approx(np.mean(seconds))
    assert made.sd == (None if len(seconds) == 1 else pytest.approx(np.std(seconds, ddof=1), abs=1e-9))
    assert made.n == len(seconds)


@given(SECONDS, SECONDS, SECONDS, SECONDS)
def test_ratios_are_to_the_best_dense_sides_of_the_first_model(a: float, b: float, c: float, d: float) -> None:
    sides = [
        side("torch", "fp32", timing(a)),
        side("openvino", "fp32", timing(b)),
        side("openvino", "int8", timing(c)),
        side("hydraprune", "fp32", timing(d)),
        side("torch", "fp32", timing(1e-7), model="another"),
    ]
    found = [result.timings[0] for result in with_ratios(sides, "cpu", "model")]
    for median, made in zip((a, b, c, d, 1e-7), found, strict=True):
        assert made.vs_fp32 == pytest.approx(min(a, b) / median)
        assert made.vs_any == pytest.approx(min(a, b, c) / median)


def test_a_median_of_0_is_no_time_to_compare_with() -> None:
    """Clocks of CPU time may be coarse."""
    none = replace(timing(1.0), cpu=replace(timing(1.0).cpu, p50=0.0))
    sides = [
        side("torch", "fp32", none),
        side("openvino", "fp32", timing(3.0)),
        side("hydraprune", "fp32", timing(1.0)),
    ]
    found = [result.timings[0].vs_fp32 for result in with_ratios(sides, "cpu", "model")]
    assert found == [None, 1.0, 3.0]


def test_without_a_dense_side_there_is_no_ratio() -> None:
    (only,) = with_ratios([side("hydraprune", "fp32", timing(1.0))], "wall", "model")
    assert (only.timings[0].vs_fp32, only.timings[0].vs_any) == (None, None)


FINITE = st.floats(-1e9, 1e9)
COUNTS = st.integers(0, 10**12)
DISTRIBUTIONS = st.builds(Distribution, COUNTS, FINITE, st.none() | FINITE, FINITE, FINITE, FINITE, FINITE)
TIMINGS = st.builds(
    Timing, TEXTS, COUNTS, st.none() | COUNTS, FINITE, DISTRIBUTIONS, DISTRIBUTIONS, FINITE, st.none() | FINITE
)
SCORES = st.none() | st.dictionaries(TEXTS, FINITE, max_size=2)
SIDES = st.builds(
    SideResult, TEXTS, TEXTS, TEXTS, TEXTS, st.none() | TEXTS, COUNTS, FINITE, FINITE, COUNTS, st.none() | COUNTS,
    st.lists(TIMINGS, max_size=2).map(tuple), st.none() | FINITE, SCORES, st.none() | FINITE,
)  # fmt: skip
MACHINES = st.builds(
    Machine, TEXTS, st.lists(TEXTS, max_size=2).map(tuple), COUNTS, st.none() | st.just((0, 1)), COUNTS,
    st.none() | st.just((0.5, 1.0, 2.0)), TEXTS,
)  # fmt: skip
REPORTS = st.builds(
    BenchReport,
    models=st.dictionaries(TEXTS, TEXTS, max_size=2),
    started=TEXTS,
    machine=MACHINES,
    threads=COUNTS,
    rounds=COUNTS,
    calls=COUNTS,
    clock=st.sampled_from(["cpu", "wall"]),
    versions=st.dictionaries(TEXTS, TEXTS, max_size=2),
    sides=st.lists(SIDES, max_size=2).map(tuple),
    failures=st.lists(st.builds(Failure, TEXTS, TEXTS, TEXTS, TEXTS), max_size=2).map(tuple),
    task=st.none() | st.builds(TaskFigures, TEXTS, TEXTS, COUNTS, COUNTS),
    schema=st.just(1),
)


@given(REPORTS)
def test_a_report_comes_back_from_json(tmp_path_factory: pytest.TempPathFactory, report: BenchReport) -> None:
    file = tmp_path_factory.getbasetemp() / "round-trip.json"
    file.write_text(report.as_json(), encoding="utf-8")
    assert read_bench(file) == report


def _change(values: dict[str, Any], path: str, value: object) -> None:
    *outer, last = path.split(".")
    place: Any = values
    for name in outer:
        place = place[int(name)] if isinstance(place, list) else place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("schema", 2, "is no bench of version 1"),
        ("sides", {}, "sides"),
        ("sides.0.engine", ..., "engine is missing"),
        ("sides.0.timings.0.wall.p50", "fast", "p50=fast must be a number"),
        ("sides.0.timings.0.cpu", None, "cpu=null must be a group of keys"),
        ("sides.0.scores", [1], "scores"),
        ("machine.pinned", ["core"], "pinned"),
        ("machine.cores", 1.5, "cores=1.5 must be a whole number"),
        ("failures.0", "none", "failures"),
        ("task", 3, "task"),
        ("models", [], "models"),
    ],
)
def test_a_damaged_report_is_refused(path: str, value: object, named: str, tmp_path: Path, bad_input: None) -> None:
    values = json.loads(small_report().as_json())
    _change(values, path, value) if path != "failures.0" else values.update(failures=["none"])
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(values))
    with pytest.raises(UserError, match=named):
        read_bench(file)


def test_a_missing_report_is_one_line(tmp_path: Path, bad_input: None) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_bench(tmp_path / "bench.json")


def test_markdown_has_whole_tables_and_everything_that_was_measured() -> None:
    report = small_report()
    text = markdown(report)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == len(report.workloads) + 1
    for block in blocks:
        widths = {line.replace("\\|", "").count("|") for line in block.splitlines()}
        assert len(widths) == 1
        assert len(block.splitlines()) == 2 + len(report.sides)
    assert any("hydraprune | bf16" in line for line in tables)
    for shown in ("A &lt;fast> CPU", "avx2", "torch 2.13.0", "0.7500", "not installed", "24 of 100", "fused | bf16"):
        assert shown in text
    assert "batch 1, toy, 8 tokens a text with padding" in text


def test_the_terminal_shows_every_side_of_every_workload_and_what_failed() -> None:
    console = Console(width=240, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    report = small_report()
    console.print(terminal(report))
    text = console.export_text()
    rows = [line for line in text.splitlines() if line.split()[:2] == ["hydraprune", "bf16"]]
    assert len(rows) == len(report.workloads) + 1
    assert "not measured: openvino fp32: the package openvino is not installed" in text
    two = replace(report, models={"model": "a", "other": "b"})
    console.print(terminal(two))
    assert "best dense fp32 side of model" in console.export_text()


def test_the_documentation_explains_every_option_and_column() -> None:
    text = (Path(__file__).parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    missing = [flag for flag in options if flag not in ("--help",) and flag not in text]
    header = [line for line in markdown(small_report()).splitlines() if line.startswith("| engine |")]
    columns = {name.strip() for line in header for name in line.strip("|").split("|")}
    columns -= {"engine", "precision", "version"} | {f"CPU {name}" for name in ("p90", "p95", "p99", "mean", "sd")}
    described = text.split("## Columns")[1].split("Above the tables")[0]
    missing += [name for name in sorted(columns) if name not in described]
    assert missing == []


def test_files_are_written_once_and_never_over_others(tmp_path: Path, bad_input: None) -> None:
    report = small_report()
    files = write_bench(report, tmp_path / "new" / "folder")
    assert read_bench(files[1]) == report
    assert files[0].read_text() == markdown(report)
    with pytest.raises(UserError, match=r"holds bench\.md already"):
        write_bench(report, tmp_path / "new" / "folder")
    (tmp_path / "report.json").write_text("{}")
    write_bench(report, tmp_path)
    assert (tmp_path / "report.json").read_text() == "{}"
