"""What benches measured of runs: how it finds them, and its columns in the results matrix."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_helpers import report, table
from speed_helpers import SIDES, WORKLOADS, bench_of, write_bench_of

from hydraprune.results.bench_report import BenchReport
from hydraprune.results.collect import FILES, gather, write_matrix
from hydraprune.results.matrix import matrix
from hydraprune.results.measurements import measured
from hydraprune.results.report import RunReport, write_report
from hydraprune.results.speed import speed_columns
from hydraprune.results.tables import as_json, comma_separated, markdown

DENSE = report(0, cell="d" * 12, phase="dense", pattern="dense", target_sparsity=None)
SPARSE = [report(seed, weights=f"digest {seed}") for seed in (0, 1)]
OTHER = report(0, cell="e" * 12, pattern="2:4", target_sparsity=0.5)
RUNS = [DENSE, *SPARSE, OTHER]


def cells_of(benches: Sequence[BenchReport], reports: Sequence[RunReport] = RUNS) -> Any:
    found = measured(reports, {Path(str(number)): bench for number, bench in enumerate(benches)})
    return matrix(reports, (), found.measurements)


def test_a_bench_is_of_the_runs_that_it_names() -> None:
    found = measured(RUNS, {Path("b"): bench_of([DENSE, SPARSE[0]])})
    assert found.left_out == ()
    assert {(one.run, one.cell, one.seed) for one in found.measurements} == {
        (run.spec.hash, run.spec.cell, run.spec.seed) for run in (DENSE, SPARSE[0])
    }
    assert len(found.measurements) == 2 * len(SIDES) * len(WORKLOADS)
    for one in found.measurements:
        assert one.baseline is not None
        assert one.baseline.run == DENSE.spec.hash
        assert one.times_fp32 == pytest.approx(one.baseline.seconds / one.seconds)
        assert set(one.scores) == {"accuracy"}


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (replace(SPARSE[0], weights="retrained"), "was measured with other weights than its run has now"),
        (replace(SPARSE[0], status="started"), "none of its models is that of a run here"),
        (OTHER, "none of its models is that of a run here"),
    ],
)
def test_what_is_not_of_a_run_as_it_is_now_is_left_out_and_said(now: RunReport, why: str) -> None:
    found = measured([now], {Path("b"): bench_of([SPARSE[0]])})
    assert found.measurements == ()
    ((file, said),) = found.left_out
    assert file == str(Path("b") / "bench.json")
    assert why in said
    assert why in markdown(matrix([now]), (), found.left_out)


def test_the_last_measurement_of_a_side_counts() -> None:
    early = bench_of([SPARSE[0]], started="2026-01-01T00:00:00+00:00")
    late = bench_of([SPARSE[0]], started="2026-01-02T00:00:00+00:00", sides=SIDES[:1])
    for order in ([early, late], [late, early]):
        found = measured(RUNS, {Path(str(number)): bench for number, bench in enumerate(order)}).measurements
        assert len(found) == len(SIDES) * len(WORKLOADS)
        assert {one.engine for one in found if one.started == late.started} == {"torch"}


def test_scores_of_another_task_are_not_those_of_the_run() -> None:
    found = measured(RUNS, {Path("b"): bench_of(SPARSE, task="sst2")})
    assert {(len(one.scores), one.examples) for one in found.measurements} == {(0, None)}


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(RUNS), min_size=1, max_size=4, unique_by=lambda run: run.spec.hash),
            st.sampled_from(["one CPU", "another CPU"]),
            st.sampled_from(["2026-01-01", "2026-01-02"]),
            st.lists(st.sampled_from(WORKLOADS), min_size=1, max_size=2, unique=True),
            st.sampled_from([1, 2]),
        ),
        max_size=4,
    )
)
def test_a_column_is_of_one_machine_and_one_workload(drawn: list[Any]) -> None:
    """And its figures are the fastest engine in fp32, as an independent reading has them."""
    benches = [bench_of(runs, cpu, day, workloads, threads=threads) for runs, cpu, day, workloads, threads in drawn]
    cells = cells_of(benches)
    columns = speed_columns(cells)
    keys = {(bench.machine.cpu, bench.threads) for bench in benches}
    assert {(column.setting.cpu, column.setting.threads) for column in columns} == keys
    assert len({column.name for column in columns}) == len(columns)
    for column in columns:
        times: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        alike = [b for b in benches if (b.machine.cpu, b.threads) == (column.setting.cpu, column.setting.threads)]
        for bench in sorted(alike, key=lambda bench: bench.started):
            for side in bench.sides:
                spec = next(run.spec for run in RUNS if run.spec.hash == bench.runs[side.model].hash)
                for timing in side.timings:
                    if (timing.workload, side.precision) == (column.workload, "fp32"):
                        times[spec.cell][side.engine][spec.seed] = timing.cpu.p50
        best = {cell: min(fmean(seeds.values()) for seeds in engines.values()) for cell, engines in times.items()}
        assert {cell: speed.seconds for cell, speed in column.cells.items()} == pytest.approx(best)


def test_columns_in_every_form_of_the_table() -> None:
    cells = cells_of([bench_of([DENSE, *SPARSE])])
    text = markdown(cells)
    by_pattern = {row["pattern"]: row for row in [*table(text, "Results"), *table(text, "Dense models")]}
    (column,) = speed_columns(cells)
    assert list(column.cells) == [DENSE.spec.cell, SPARSE[0].spec.cell]
    speed = column.cells[SPARSE[0].spec.cell]
    assert speed.seeds == (0, 1)
    assert by_pattern["4x1 at 90%"]["ms"] == f"{1e3 * speed.seconds:.3g} ({speed.engine})"
    assert by_pattern["4x1 at 90%"]["x dense"] == f"{speed.times:.2f}"
    assert (by_pattern["2:4 at 50%"]["ms"], by_pattern["2:4 at 50%"]["x dense"]) == ("-", "-")
    assert by_pattern["dense"]["ms"] != "-"
    for said in ("batch 1, 32 tokens", "A &lt;fast> CPU", "1 thread of 2 cores, CPU time", "dense in "):
        assert said in column_note(text)
    rows = {row["pattern"]: row for row in csv.DictReader(io.StringIO(comma_separated(cells)))}
    assert float(rows["4x1"]["speed_seconds"]) == speed.seconds
    assert rows["4x1"]["speed_workload"] == column.workload
    assert rows["2:4"]["speed_seconds"] == rows["2:4"]["speed_cpu"] == ""
    nested = {cell["pattern"]: cell for cell in json.loads(as_json(cells))["cells"]}
    assert len(nested["4x1"]["measured"]) == 2 * len(SIDES) * len(WORKLOADS)
    assert {found["setting"]["cpu"] for found in nested["4x1"]["measured"]} == {"A <fast> CPU"}
    assert "measured" not in nested["2:4"]


def column_note(text: str) -> str:
    (note,) = [line for line in text.splitlines() if line.startswith("- ms: ")]
    return note


def test_figures_of_two_machines_have_columns_of_their_own() -> None:
    cells = cells_of([bench_of([DENSE, SPARSE[0]], cpu="one CPU"), bench_of([SPARSE[0]], cpu="two CPU", threads=2)])
    text = markdown(cells)
    header = next(line for line in text.splitlines() if line.startswith("| model"))
    assert [name.strip() for name in header.split("|")][9:13] == ["ms (A)", "x dense (A)", "ms (B)", "x dense (B)"]
    notes = [line for line in text.splitlines() if line.startswith(("- A: ms", "- B: ms"))]
    assert ["one CPU" in notes[0], "two CPU" in notes[1], "wall time" in notes[1]] == [True] * 3
    rows = list(csv.DictReader(io.StringIO(comma_separated(cells))))
    assert {row["speed_A_cpu"] for row in rows} == {"one CPU", ""}
    assert {row["speed_B_cpu"] for row in rows} == {"two CPU", ""}


def test_a_side_that_a_coarse_clock_gave_no_time_is_no_baseline() -> None:
    bench = bench_of([DENSE, SPARSE[0]])
    torch = [timing for side in bench.sides if side.engine == "torch" for timing in side.timings]
    sides = []
    for side in bench.sides:
        timings = tuple(replace(one, cpu=replace(one.cpu, p50=0.0)) if one in torch else one for one in side.timings)
        sides.append(replace(side, timings=timings))
    found = measured(RUNS, {Path("b"): replace(bench, sides=tuple(sides))}).measurements
    assert {one.baseline.engine for one in found if one.baseline is not None} == {"openvino"}
    assert all(one.engine != "torch" for one in found)


def test_without_a_bench_nothing_changes() -> None:
    cells = matrix(RUNS)
    assert " ms " not in markdown(cells)
    assert "speed" not in comma_separated(cells)
    assert "measured" not in as_json(cells)


def test_a_slimmed_model_is_named() -> None:
    """It is another form of its run's model."""
    cells = cells_of([bench_of([SPARSE[0]], sides=SIDES[:1]), bench_of([SPARSE[0]], folder="model-slim")])
    forms = {(found.folder, found.form) for cell in cells for found in cell.measured}
    assert forms == {("model", ""), ("model-slim", "model-slim")}
    engines = {speed.engine for column in speed_columns(cells) for speed in column.cells.values()}
    assert all("model-slim" in engine or engine == "torch" for engine in engines)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    for number, run in enumerate(RUNS):
        folder = tmp_path / "runs" / str(number)
        folder.mkdir(parents=True)
        write_report(run, folder)
    return tmp_path


def test_benches_below_a_folder_are_found_and_damaged_ones_named(kept: Path, bad_input: None) -> None:
    write_bench_of(kept / "bench", bench_of([DENSE, SPARSE[0]]))
    damaged = write_bench_of(kept / "damaged", bench_of([OTHER]))
    damaged.write_text(damaged.read_text().replace('"cores": 2', '"cores": "two"'))
    foreign = kept / "foreign" / "bench.json"
    foreign.parent.mkdir()
    foreign.write_text('{"results": [1, 2]}')
    found = gather([kept])
    assert list(found.benches) == [kept / "bench"]
    ((file, why),) = found.failures
    assert file == str(damaged)
    assert "cores=two must be a whole number" in why
    (column,) = speed_columns(found.cells)
    assert set(column.cells) == {DENSE.spec.cell, SPARSE[0].spec.cell}
    write_matrix(found, kept)
    first = {name: (kept / name).read_bytes() for name in FILES}
    write_matrix(gather([kept]), kept)
    assert {name: (kept / name).read_bytes() for name in FILES} == first


@pytest.mark.parametrize("clock", ["sun", ""])
def test_a_clock_that_is_not_known_is_named(clock: str, kept: Path) -> None:
    bench = replace(bench_of([DENSE]), clock=clock)
    file = write_bench_of(kept / "bench", bench)
    ((name, why),) = gather([kept]).failures
    assert name == str(file)
    assert "must be cpu or wall" in why


def test_the_command_prints_the_columns(kept: Path, hydraprune: Callable[..., Any]) -> None:
    write_bench_of(kept / "bench", bench_of([DENSE, SPARSE[0]]))
    done = hydraprune("report", str(kept))
    assert done.code == 0
    assert "x dense" in done.out
    assert "batch 1, 32 tokens, on A &lt;fast> CPU" in done.out
