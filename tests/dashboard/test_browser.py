"""The page in a real browser, compared with the reports."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_helpers import AS_PHONE, DESKTOP, PHONE, visit
from dashboard_helpers import NASTY, STUDIES, World, folder_of, report
from playwright.sync_api import Browser
from safetensors.numpy import load_file

from hydraprune.dashboard import page, write_page

# In one worker, since a page and a browser are expensive.
pytestmark = pytest.mark.xdist_group("browser")

Json = dict[str, Any]


@pytest.fixture(scope="module")
def all_reports(made: World) -> list[Json]:
    """The contents of every report.json."""
    places = sorted([*made.sweep.rglob("report.json"), *made.outputs.rglob("report.json")])
    return [{**json.loads(place.read_text()), "folder": place.parent.as_posix()} for place in places]


@pytest.mark.parametrize(
    ("name", "size", "kind"),
    [
        ("desktop", DESKTOP, {}),
        ("phone", PHONE, AS_PHONE),
        ("dark", DESKTOP, {"color_scheme": "dark"}),
    ],
)
def test_the_whole_page_requests_nothing_and_logs_no_errors(
    name: str, size: tuple[int, int], kind: Json, browser: Browser, page_file: Path, tmp_path: Path
) -> None:
    with visit(browser, page_file, size, **kind) as found:
        found.scroll_through()
        assert found.page.locator("figure[data-drawn]").count() == found.page.locator("figure").count() == 29
        assert found.page.locator("figure.wide svg, figure.third svg, figure.layers svg").count() == 21
        assert found.page.locator("figure.mask canvas").count() == 8
        for shape in found.shapes():
            assert 0.5 * shape["room"] < shape["width"] <= shape["room"] + 1, shape
            assert shape["height"] > 60, shape
        width = found.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert width[0] <= width[1] == size[0]
        folder = Path(os.environ.get("HYDRAPRUNE_SCREENSHOTS") or tmp_path)
        folder.mkdir(parents=True, exist_ok=True)
        picture = found.page.screenshot(path=folder / f"dashboard-{name}.png", full_page=True)
        assert len(picture) > 100_000
        assert found.requested == [page_file.as_uri()]
        assert (found.errors, found.messages) == ([], [])


def mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def scores(reports: list[Json], metric: str) -> dict[int, float]:
    return {one["seed"]: one["final"][metric] for one in reports if one["final"].get(metric) is not None}


def figures_of(reports: list[Json], metric: str) -> dict[str, float | None]:
    """The values of one row, from the reports of its cell."""
    done = [one for one in reports if one["status"] == "finished"]
    mine = scores(done, metric)
    ratio = mean([one["sparsity"]["linear"] for one in done])
    if not reports[0]["dense"]:
        own = mean(list(mine.values()))
        return {
            "ratio": ratio,
            "dense_mean": own,
            "sparse_mean": None,
            "drop": None,
            "difference": None,
            "seeds": len(mine),
        }
    theirs = {one["seed"]: one["dense"][metric] for one in done if one["seed"] in mine}
    return {
        "ratio": ratio,
        "dense_mean": mean(list(theirs.values())),
        "sparse_mean": mean(list(mine.values())),
        "drop": max(mine.values()) / max(theirs.values()) - 1,
        "difference": mean([value - theirs[seed] for seed, value in mine.items()]),
        "seeds": len(mine),
    }


ROWS = """rows => rows.map(row => ({...row.dataset, text: row.textContent, values: Object.fromEntries(
    [...row.querySelectorAll('td[data-key][data-value]')].map(cell => [cell.dataset.key, cell.dataset.value]))}))"""


def same(shown: dict[str, str], wanted: dict[str, float | None]) -> None:
    assert set(shown) == set(wanted)
    for key, value in wanted.items():
        found = None if shown[key] == "None" else float(shown[key])
        assert (found is None) == (value is None), key
        assert found is None or found == pytest.approx(value, rel=1e-9), key


def test_all_values_of_the_results_are_those_of_the_reports(
    browser: Browser, page_file: Path, all_reports: list[Json]
) -> None:
    by_cell = defaultdict(list)
    for one in all_reports:
        by_cell[one["cell"]].append(one)
    metrics = {cell: list(reports[0]["final"]) for cell, reports in by_cell.items()}
    with visit(browser, page_file) as found:
        rows = found.page.locator("table.matrix tbody tr").evaluate_all(ROWS)
        tables = found.page.locator("#runs table tbody tr").evaluate_all(ROWS)
    assert {(row["cell"], row["metric"]) for row in rows} == {
        (c, m) for c, all_ in metrics.items() for m in all_ or [""]
    }
    assert len(rows) == len({(row["cell"], row["metric"]) for row in rows})
    for row in rows:
        if row["metric"]:
            wanted = figures_of(by_cell[row["cell"]], row["metric"])
            same(row["values"], wanted)
            for key in ("dense_mean", "sparse_mean"):
                assert wanted[key] is None or f"{wanted[key]:.4f} / " in row["text"]
        else:
            assert {key: value for key, value in row["values"].items() if key != "seeds"} == dict.fromkeys(
                ("ratio", "dense_mean", "sparse_mean", "drop", "difference"), "None"
            )
    # The F1 of one run is not finite: two seeds of three.
    (odd,) = [row for row in rows if (row["task"], row["pattern"], row["metric"]) == ("mrpc", "1xchannel", "f1")]
    assert (odd["values"]["seeds"], "of 3" in odd["text"]) == ("2", True)
    # The published row is shown with ours, for its metric only.
    (f1, accuracy) = [
        row for row in rows if (row["task"], row["pattern"], row["values"]["ratio"]) == ("mrpc", "4x1", f1_ratio(rows))
    ]
    for figure in ("88.0%", "0.8619 / 0.8752", "0.8610 / 0.8722", "-0.34%", "-0.0009"):
        assert figure in f1["text"]
        assert figure not in accuracy["text"]

    assert len(tables) == len(all_reports)
    by_hash = {report["hash"]: report for report in all_reports}
    for row in tables:
        report = by_hash.pop(row["run"])
        same(row["values"], run_figures(report))
        assert report["status"] in row["text"]
        assert Path(report["folder"]).name in row["text"]
        assert "/tmp" not in row["text"]
        assert f"seed {report['seed']}" in row["text"]
    assert by_hash == {}


def f1_ratio(rows: list[Json]) -> str:
    found: str = next(row["values"]["ratio"] for row in rows if (row["task"], row["pattern"]) == ("mrpc", "4x1"))
    return found


def run_figures(report: Json) -> dict[str, float | None]:
    score, train = report["final"].get(report["metric"]), report["seconds"].get("train")
    before = (report["dense"] or {}).get(report["metric"])
    return {
        "score": score,
        "difference": None if score is None or before is None else score - before,
        "sparsity": (report["sparsity"] or {}).get("prunable"),
        "total": report["seconds"].get("total"),
        "steps_per_second": report["steps"] / train if train else None,
        "examples_per_second": report["examples"] / train if train else None,
    }


def test_failures_with_their_errors(browser: Browser, page_file: Path, made: World) -> None:
    with visit(browser, page_file) as found:
        items = found.page.locator(".failures li").evaluate_all(
            "all => all.map(item => [...item.children].map(part => part.textContent))"
        )
    assert {str(made.sweep / what): why for what, why in items} == made.failures
    assert NASTY in made.failures.values()


def test_the_scatter_shows_the_reports(browser: Browser, page_file: Path, all_reports: list[Json]) -> None:
    with visit(browser, page_file) as found:
        for task, model in STUDIES:
            found.see(f"accuracy-{task}-{model}")
            runs = [one for one in all_reports if (one["task"], one["model"], one["phase"]) == (task, model, "sparse")]
            done = [one for one in runs if one["final"].get(one["metric"]) is not None]
            wanted = sorted((one["pattern"], one["seed"], one["final"][one["metric"]]) for one in done)
            rows = found.table(f"accuracy-{task}-{model}")
            assert [(row["pattern"], int(row["seed"])) for row in rows_by_name(rows)] == [key[:2] for key in wanted]
            for row, (_, _, score) in zip(rows_by_name(rows), wanted, strict=True):
                assert float(row["score"]) == pytest.approx(score, abs=1e-5)
            assert len(found.seeds_drawn(f"accuracy-{task}-{model}")) == len(done)


def rows_by_name(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(rows, key=lambda row: (row["pattern"], int(row["seed"])))


# The colors of a canvas at the center of each weight; Vega has a padding of 5 px.
PIXELS = """(canvas, [rows, columns]) => {
    const brush = canvas.getContext("2d"), count = (n) => [...Array(n).keys()];
    const wide = (canvas.width - 10) / columns, tall = (canvas.height - 10) / rows;
    const at = (row, column) => brush.getImageData(5 + (column + 0.5) * wide, 5 + (row + 0.5) * tall, 1, 1).data;
    return count(rows).map((row) => count(columns).map((column) => at(row, column).join(" "))); }"""


def test_masks_show_the_saved_weights(browser: Browser, page_file: Path, made: World) -> None:
    """Each zero in the file is background in the figure."""
    with visit(browser, page_file, (640, 900)) as found:
        found.see("mask")
        for figure in found.figure("mask").all():
            caption = figure.locator("figcaption").inner_text()
            (weight, seed), places = (
                re.findall(r"^(\S+), .*seed (\d+)", caption)[0],
                re.findall(r"s (\d+) to (\d+)", caption),
            )
            (top, bottom), (left, right) = ((int(first), int(last) + 1) for first, last in places)
            section = figure.locator("xpath=ancestor::section")
            task, model, pattern = (
                str(section.get_attribute("data-task")),
                str(section.get_attribute("data-model")),
                str(figure.get_attribute("data-pattern")),
            )
            folder = folder_of(made.sweep, report(task, model, pattern, int(seed)))
            kept = load_file(folder / "model" / "model.safetensors")[weight][top:bottom, left:right] != 0
            pixels = np.array(figure.locator("canvas").evaluate(PIXELS, list(kept.shape)))
            (foreground,), (background,) = set(pixels[kept]), set(pixels[~kept])
            assert foreground != background
            # Weights are square.
            box = figure.locator("canvas").bounding_box()
            assert box is not None
            assert (box["height"] - 10) / (box["width"] - 10) == pytest.approx(kept.shape[0] / kept.shape[1], rel=0.05)


def test_a_packed_page_shows_the_same(
    made: World, browser: Browser, page_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "LARGE", 0)
    file = write_page([made.sweep], tmp_path / "packed.html", title=made.sweep.name)
    assert file.read_bytes() == write_page([made.sweep], tmp_path / "again.html", title=made.sweep.name).read_bytes()
    assert file.stat().st_size < page_file.stat().st_size
    shown = []
    for each in (page_file, file):
        with visit(browser, each, DESKTOP) as found:
            found.page.wait_for_selector("#runs tbody tr", state="attached")
            found.page.wait_for_selector("figure[data-drawn]")
            assert (found.errors, found.messages) == ([], [])
            tables = [found.page.locator(name).inner_text() for name in ("#matrix table", "#runs table")]
            shown.append((*tables, found.page.locator("main figure").count()))
    assert shown[0] == shown[1]
    assert shown[0][2] == 29
