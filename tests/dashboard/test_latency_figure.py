"""Measurements on the page: the figure of score against latency, and the columns of the results."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from browser_helpers import AS_PHONE, DESKTOP, PHONE, visit
from dashboard_helpers import NASTY, World, comparison, report, world
from playwright.sync_api import Browser
from speed_helpers import SIDES, WORKLOADS, bench_of, write_bench_of

from hydraprune.dashboard import write_figures, write_page
from hydraprune.dashboard.figures import all_figures
from hydraprune.dashboard.records import records
from hydraprune.results.bench_report import BenchReport

# In one worker, since a page and a browser are expensive.
pytestmark = pytest.mark.xdist_group("browser")

FIGURE = "latency-mrpc-bert_mini"
CPU = f"A CPU {NASTY}"


@pytest.fixture(scope="module")
def benched(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("benched"))


@pytest.fixture(scope="module")
def bench(benched: World) -> BenchReport:
    """Of a dense and two sparse runs, below the sweep."""
    runs = [report("mrpc", "bert_mini", pattern, 0) for pattern in ("dense", "4x1", "2:4")]
    made = bench_of(runs, cpu=CPU)
    write_bench_of(benched.sweep / "bench", made)
    return made


@pytest.fixture(scope="module")
def page_with_speed(benched: World, bench: BenchReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page([benched.sweep], tmp_path_factory.mktemp("speed") / "page.html")


def expected(bench: BenchReport, metric: str, workload: str) -> list[tuple[str, str, float, float]]:
    """(engine, precision, milliseconds, score) of every side, from the bench itself."""
    return sorted(
        (side.engine, side.precision, 1e3 * timing.cpu.p50, side.scores[metric])
        for side in bench.sides
        for timing in side.timings
        if side.scores is not None and timing.workload == workload
    )


def test_the_rows_are_those_of_the_bench(benched: World, bench: BenchReport) -> None:
    (speeds,) = comparison(records([benched.sweep])).speeds
    assert speeds.workloads == list(WORKLOADS)
    assert speeds.setting.cpu == CPU
    for metric in ("f1", "accuracy"):
        for workload in WORKLOADS:
            rows = [row for row in speeds.points if (row["metric"], row["workload"]) == (metric, workload)]
            found = sorted((row["engine"], row["precision"], row["ms"], row["score"]) for row in rows)
            assert found == expected(bench, metric, workload)
    # The model in fp32, which others of it are compared with.
    for row in speeds.points:
        assert row["level"] == pytest.approx(row["score"] + (0.05 if row["precision"] == "int8" else 0))
    assert {row["label"] for row in speeds.points} == {"dense", "4x1 at 90%", "2:4 at 50%"}
    assert {row["label"].rpartition(" in ")[0] for row in speeds.baselines} == {"dense"}
    assert comparison(records([benched.sweep]), "sst2").speeds == []


def test_its_files_and_words(benched: World, bench: BenchReport, tmp_path: Path) -> None:
    (figure,) = [figure for figure in all_figures(records([benched.sweep])) if figure.id.startswith("latency")]
    assert CPU in figure.caption
    assert "1 thread of 2 cores, CPU time" in figure.caption
    assert figure.summary.startswith(f"{WORKLOADS[0]}: ")
    for name in ("dense: ", "4x1 at 90%: ", "2:4 at 50%: "):
        assert name in figure.summary
    (svg,) = [file for file in write_figures([benched.sweep], tmp_path) if file.name == f"{figure.id}.svg"]
    image = svg.read_text()
    assert image.count("milliseconds of CPU time a call") >= 1
    assert f"Score against latency: f1, {WORKLOADS[0]}" in image
    # One mark per side: those of other metrics and workloads are left out.
    assert image.count('aria-roledescription="point"') == 3 * len(SIDES)


@pytest.mark.parametrize(
    ("name", "size", "kind"),
    [("desktop", DESKTOP, {}), ("phone", PHONE, AS_PHONE), ("dark", DESKTOP, {"color_scheme": "dark"})],
)
def test_the_figure_in_a_browser(
    name: str, size: tuple[int, int], kind: dict[str, Any], browser: Browser, page_with_speed: Path,
    bench: BenchReport, tmp_path: Path,
) -> None:  # fmt: skip
    with visit(browser, page_with_speed, size, **kind) as found:
        found.see(FIGURE)
        figure = found.figure(FIGURE)
        assert figure.locator(".measure").inner_text() == f"f1, {WORKLOADS[0]}"
        marks = figure.locator("svg [aria-roledescription='point']")
        assert marks.count() == 3 * len(SIDES)
        texts = figure.locator("svg text").all_text_contents()
        assert {"dense", "4x1 at 90%", "2:4 at 50%", "torch", "openvino", "hydraprune"} <= set(texts)
        found.page.locator("select[data-workload]").select_option(WORKLOADS[1])
        found.page.locator("select[data-metric]").select_option("accuracy")
        found.page.wait_for_function(
            "id => document.querySelector(`figure[id^=\"${id}\"] .measure`).textContent.includes('accuracy, batch 8')",
            arg=FIGURE,
        )
        rows = found.table(FIGURE)
        shown = sorted((row["engine"], row["precision"], float(row["ms"]), float(row["score"])) for row in rows)
        for mine, wanted in zip(shown, expected(bench, "accuracy", WORKLOADS[1]), strict=True):
            assert mine[:2] == wanted[:2]
            assert mine[2:] == pytest.approx(wanted[2:], rel=1e-3)
        found.choose("pattern", "4x1")
        shown_models = {row["name"] for row in found.table(FIGURE)}
        assert shown_models == {"dense", "4x1 at 90%"}
        folder = Path(os.environ.get("HYDRAPRUNE_SCREENSHOTS") or tmp_path)
        folder.mkdir(parents=True, exist_ok=True)
        assert len(figure.screenshot(path=folder / f"latency-{name}.png")) > 5000
        width = found.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert width[0] <= width[1]
        assert (found.errors, found.messages) == ([], [])


def test_a_point_says_what_it_is(browser: Browser, page_with_speed: Path) -> None:
    with visit(browser, page_with_speed) as found:
        found.see(FIGURE)
        names = (
            found.figure(FIGURE)
            .locator("svg [aria-roledescription='point']")
            .evaluate_all("marks => marks.map(mark => mark.getAttribute('aria-label'))")
        )
        assert len(names) == 3 * len(SIDES)
        for name in names:
            for word in ("model: ", "engine: ", "precision: ", "ms: ", "x dense fp32: ", "score: "):
                assert word in name
        found.figure(FIGURE).locator("svg [aria-roledescription='point']").first.hover()
        tooltip = found.page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        assert "engine" in tooltip.inner_text()


def test_the_columns_of_the_results(browser: Browser, page_with_speed: Path, bench: BenchReport) -> None:
    with visit(browser, page_with_speed) as found:
        rows = found.page.locator("table.matrix tbody tr").evaluate_all(
            "rows => rows.map(row => [row.dataset.cell, ...['seconds', 'times'].map("
            "key => row.querySelector(`[data-key=${key}]`).dataset.value)])"
        )
        notes = found.page.locator("#matrix .note").all_text_contents()
    fastest = {
        report("mrpc", "bert_mini", label.split("-")[0], 0).spec.cell: min(
            timing.cpu.p50
            for side in bench.sides
            if side.model == label and side.precision == "fp32"
            for timing in side.timings
            if timing.workload == WORKLOADS[0]
        )
        for label in bench.models
    }
    for cell, seconds, times in rows:
        assert (float(seconds) if seconds != "None" else None) == fastest.get(cell)
        assert (times == "None") == (cell not in fastest)
    (note,) = [text for text in notes if text.startswith("ms: ")]
    assert f"{WORKLOADS[0]}, on {CPU}" in note


def test_a_page_without_a_bench_has_no_trace_of_it(page_file: Path, page_with_speed: Path) -> None:
    assert '<th scope="col" class="n">ms' not in page_file.read_text()
    assert "select data-workload" not in page_file.read_text()
    assert "select data-workload" in page_with_speed.read_text()


def test_benches_that_are_of_no_run_are_named_without_the_path_above(
    benched: World, bench: BenchReport, tmp_path: Path
) -> None:
    write_bench_of(tmp_path / "elsewhere", bench_of([report("mrpc", "another", "4x1", 0)]))
    text = write_page([benched.sweep, tmp_path], tmp_path / "page.html").read_text()
    assert "none of its models is that of a run here" in text
    assert json.dumps(str(benched.sweep))[1:-1] not in text


def test_a_bench_that_is_a_link_to_itself_is_named(tmp_path: Path, bad_input: None) -> None:
    made = world(tmp_path)
    (made.sweep / "bench").mkdir()
    (made.sweep / "bench" / "bench.json").symlink_to("bench.json")
    assert ("bench/bench.json", "cannot be read") in [
        (name, why.partition(" (")[0]) for name, why in records([made.sweep]).failures
    ]
