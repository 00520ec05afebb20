"""Use of the page: filters, sorting, downloads, themes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from browser_helpers import AS_PHONE, DESKTOP, PHONE, Visit, visit
from dashboard_helpers import NASTY, World
from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.xdist_group("browser")

Json = dict[str, Any]
MARKS = "([id, n]) => document.querySelectorAll(`figure[id^=${id}] svg [aria-label*='seed: ']`).length === n"


@pytest.fixture(scope="module")
def all_reports(made: World) -> list[Json]:
    places = sorted([*made.sweep.rglob("report.json"), *made.outputs.rglob("report.json")])
    return [json.loads(place.read_text()) for place in places]


def scored(all_reports: list[Json], metric: str, **names: str) -> list[Json]:
    """The finished sparse runs that have such a score."""
    return [
        one
        for one in all_reports
        if one["phase"] == "sparse" and one["final"].get(metric) is not None
        if all(one[name] == value for name, value in names.items())
    ]


def state(found: Visit) -> Json:
    """What is visible."""
    return {
        "results": found.shown("table.matrix tbody tr", "data-pattern"),
        "runs": found.shown("#runs tbody tr", "data-run"),
        "sections": [f"{t}/{m}" for t, m in zip(*comparisons(found), strict=True)],
        "masks": found.shown("figure[data-pattern]", "data-pattern"),
        "shown": found.page.locator("#shown").inner_text(),
        "hash": found.page.evaluate("location.hash"),
        "reset": found.page.get_by_role("button", name="Show all").is_visible(),
    }


def comparisons(found: Visit) -> tuple[list[str], list[str]]:
    selector = "section[data-task]"
    return found.shown(selector, "data-task"), found.shown(selector, "data-model")


def test_filters(browser: Browser, page_file: Path, all_reports: list[Json]) -> None:
    with visit(browser, page_file) as found:
        found.see("accuracy")
        everything = state(found)
        assert (everything["shown"], everything["hash"], everything["reset"]) == ("", "", False)
        assert sorted(everything["runs"]) == sorted(one["hash"] for one in all_reports)

        # A pattern: its rows and masks, and the dense runs, which belong to all patterns.
        found.choose("pattern", "2:4")
        now = state(found)
        of_pattern = [one["hash"] for one in all_reports if one["pattern"] in ("2:4", "dense")]
        assert set(now["results"]) == {"2:4", ""}
        assert sorted(now["runs"]) == sorted(of_pattern)
        assert set(now["masks"]) == {"2:4"}
        assert now["shown"] == f"{len(of_pattern)} of {len(all_reports)} runs"
        assert (now["hash"], now["reset"]) == ("#pattern=2%3A4", True)
        assert now["sections"] == everything["sections"]
        drawn = scored(all_reports, "f1", task="mrpc", pattern="2:4")
        assert {row["pattern"] for row in found.table("accuracy-mrpc")} == {"2:4"}
        assert {row["pattern"] for row in found.table("loss-mrpc")} == {"2:4", "dense"}
        assert {row["pattern"] for row in found.table("cost")} == {"2:4"}
        found.page.wait_for_function(MARKS, arg=["accuracy-mrpc", len(drawn)])
        assert all("label: 2:4 at 50%" in mark for mark in found.seeds_drawn("accuracy-mrpc"))
        # A comparison without the pattern says so and draws nothing.
        assert found.figure("accuracy-sst2-tiny").locator(".none").is_visible()
        assert not found.figure("accuracy-sst2-tiny").locator(".plot").is_visible()

        # Two patterns: both are shown.
        found.choose("pattern", "4x1")
        assert set(state(found)["results"]) == {"2:4", "4x1", ""}
        assert {row["pattern"] for row in found.table("accuracy-mrpc")} == {"2:4", "4x1"}

        # A task and a model: their combination.
        found.choose("task", "sst2")
        found.choose("model", "tiny")
        now = state(found)
        assert now["sections"] == ["sst2/tiny"]
        assert now["hash"] == "#task=sst2&model=tiny&pattern=4x1&pattern=2%3A4"
        assert sorted(now["runs"]) == sorted(one["hash"] for one in all_reports if one["model"] == "tiny")

        # The filters survive a reload, and can be reset.
        found.page.reload()
        assert state(found) == now
        assert {row["pattern"] for row in found.table("accuracy-sst2-tiny")} == {"4x1"}
        found.page.get_by_role("button", name="Show all").click()
        found.page.wait_for_function("location.hash === ''")
        assert state(found) == everything
        found.see("accuracy-mrpc")
        found.page.wait_for_function(MARKS, arg=["accuracy-mrpc", len(scored(all_reports, "f1", task="mrpc"))])
        assert found.errors == []


def test_filters_by_keyboard_alone(browser: Browser, page_file: Path, all_reports: list[Json]) -> None:
    with visit(browser, page_file) as found:

        def tab_to(wanted: Locator) -> None:
            for _ in range(30):
                if wanted.evaluate("element => element === document.activeElement"):
                    return
                found.page.keyboard.press("Tab")
            raise AssertionError(f"no Tab leads to {wanted}")

        found.page.keyboard.press("Tab")
        assert found.page.evaluate("document.activeElement.textContent") == "Skip to the results"
        for pattern in ("2:4", "mixed"):
            tab_to(found.page.get_by_role("checkbox", name=pattern, exact=True))
            found.page.keyboard.press("Space")
        assert set(found.shown("table.matrix tbody tr", "data-pattern")) == {"2:4", "mixed", ""}
        tab_to(found.page.get_by_role("button", name="Show all"))
        found.page.keyboard.press("Space")
        found.page.wait_for_function("location.hash === ''")
        assert len(found.shown("#runs tbody tr", "data-run")) == len(all_reports)


def test_filters_in_the_url(browser: Browser, page_file: Path, all_reports: list[Json]) -> None:
    with visit(browser, page_file, hash="#pattern=mixed&task=mrpc&pattern=nonsense&other=1") as found:
        found.see("accuracy-mrpc")
        assert found.page.get_by_role("checkbox", name="mixed", exact=True).is_checked()
        assert found.page.locator("#filters input:checked").count() == 2
        assert set(found.shown("table.matrix tbody tr", "data-pattern")) == {"mixed", ""}
        assert len(found.seeds_drawn("accuracy-mrpc")) == len(scored(all_reports, "f1", pattern="mixed"))


def test_the_metric_selector(browser: Browser, page_file: Path, all_reports: list[Json]) -> None:
    with visit(browser, page_file) as found:
        found.see("accuracy-mrpc")
        loss, others = found.table("loss-mrpc"), found.table("accuracy-sst2-tiny")
        for metric in ("f1", "accuracy"):
            found.page.locator("section[data-task=mrpc] select").select_option(metric)
            for name in ("accuracy", "score"):
                assert {row["metric"] for row in found.table(f"{name}-mrpc")} == {metric}
                assert found.figure(f"{name}-mrpc").locator(".measure").inner_text() == metric
            wanted = sorted(one["final"][metric] for one in scored(all_reports, metric, task="mrpc"))
            rows = found.table("accuracy-mrpc")
            assert sorted(float(row["score"]) for row in rows) == pytest.approx(wanted, abs=1e-5)
            found.page.wait_for_function(MARKS, arg=["accuracy-mrpc", len(wanted)])
        # Figures without a metric, and of another comparison, do not change.
        assert found.table("loss-mrpc") == loss
        assert found.table("accuracy-sst2-tiny") == others


def downloaded(found: Visit, button: Locator) -> tuple[str, bytes]:
    with found.page.expect_download() as waiting:
        button.click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def lines_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(content.decode("utf-8").splitlines()))


def test_downloads_of_data(browser: Browser, page_file: Path, all_reports: list[Json]) -> None:
    with visit(browser, page_file) as found:
        scatter = found.page.get_by_role("button", name="Data of Score against sparsity as CSV").first
        name, content = downloaded(found, scatter)
        assert name.startswith("accuracy-mrpc-bert_mini")
        assert name.endswith(".csv")
        wanted = {(one["pattern"], one["seed"]): one["final"]["f1"] for one in scored(all_reports, "f1", task="mrpc")}
        rows = lines_of(content)
        assert {(row["pattern"], int(row["seed"])): float(row["score"]) for row in rows} == wanted
        assert len(rows) == len(wanted)

        results = found.page.get_by_role("button", name="The results as CSV")
        rows = lines_of(downloaded(found, results)[1])
        assert len(rows) == found.page.locator("table.matrix tbody tr").count()
        runs = found.page.get_by_role("button", name="All runs as CSV")
        rows = lines_of(downloaded(found, runs)[1])
        assert {row["hash"] for row in rows} == {one["hash"] for one in all_reports}
        assert [row["error"] for row in rows if row["error"]] == [NASTY]

        # Without the rows that are filtered out.
        found.choose("pattern", "4x1")
        rows = lines_of(downloaded(found, results)[1])
        assert {row["pattern"] for row in rows} == {"4x1", "dense"}
        rows = lines_of(downloaded(found, scatter)[1])
        assert {row["pattern"] for row in rows} == {"4x1"}


@pytest.mark.parametrize("start", ["accuracy-mrpc", "mask-mrpc", "cost", "layers-sst2"])
def test_downloads_of_images(start: str, browser: Browser, page_file: Path) -> None:
    with visit(browser, page_file) as found:
        found.see(start)
        tools = found.figure(start).first.locator(".tools")
        name, content = downloaded(found, tools.locator("[data-save=svg]"))
        assert name.endswith(".svg")
        drawing = ElementTree.fromstring(content)
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        assert sum(element.tag.endswith("path") for element in drawing.iter()) > 5
        name, content = downloaded(found, tools.locator("[data-save=png]"))
        assert name.endswith(".png")
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert int.from_bytes(content[16:20], "big") > 400
        assert int.from_bytes(content[20:24], "big") > 100
        assert found.page.locator("figure svg, figure canvas").count() <= found.page.locator("figure").count()
        assert found.errors == []


GROUND = "getComputedStyle(document.body).backgroundColor"


def test_themes(browser: Browser, page_file: Path) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with visit(browser, page_file, color_scheme=scheme) as found:
            button = found.page.locator("#theme")
            grounds[scheme] = found.page.evaluate(GROUND)
            assert button.inner_text() == "Auto"
            ink = axis_ink(found)
            for name in ("Light", "Dark"):
                button.click()
                assert button.inner_text() == name
                assert name.lower() in str(button.get_attribute("aria-label"))
                grounds[scheme, name] = found.page.evaluate(GROUND)
                found.page.wait_for_function(
                    "([was, same]) => (axisInk() === was) === same", arg=[ink, name.lower() == scheme]
                )
            # The choice is stored.
            found.page.reload()
            assert button.inner_text() == "Dark"
            button.click()
            assert (button.inner_text(), found.page.evaluate(GROUND)) == ("Auto", grounds[scheme])
            assert found.errors == []
    assert grounds["light"] == grounds["light", "Light"] == grounds["dark", "Light"]
    assert grounds["dark"] == grounds["light", "Dark"] == grounds["dark", "Dark"]
    assert grounds["light"] != grounds["dark"]


def axis_ink(found: Visit) -> str:
    """The color of a figure's text, once it is drawn."""
    found.page.evaluate("globalThis.axisInk = () => document.querySelector('#cost svg text')?.getAttribute('fill')")
    found.page.locator("#cost").scroll_into_view_if_needed()
    found.page.wait_for_function("axisInk()")
    return str(found.page.evaluate("axisInk()"))


def test_figures_that_were_hidden_are_drawn_again(browser: Browser, page_file: Path) -> None:
    """A hidden figure has no width; shown again, it has the current width and theme."""
    with visit(browser, page_file, PHONE, **AS_PHONE) as found:
        found.scroll_through()
        ink = axis_ink(found)
        found.choose("pattern", "2:4")
        found.choose("task", "sst2")
        found.page.wait_for_timeout(100)
        found.page.set_viewport_size({"width": PHONE[1], "height": PHONE[0]})
        for _ in ("light", "dark"):
            found.page.locator("#theme").click()
        found.page.wait_for_timeout(100)
        found.page.get_by_role("button", name="Show all").click()
        found.page.wait_for_function("location.hash === ''")
        found.scroll_through()
        found.page.wait_for_timeout(100)
        assert len(found.shapes()) == found.page.locator("figure").count()
        for shape in found.shapes():
            assert 0.5 * shape["room"] < shape["width"] <= shape["room"] + 1, shape
            assert shape["height"] > 60, shape
        inks = "all => [...new Set(all.map(f => f.querySelector('svg text')?.getAttribute('fill')).filter(Boolean))]"
        assert ink not in found.page.locator("figure.wide, figure.third").evaluate_all(inks)
        assert found.errors == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_nothing_moves_when_figures_are_drawn(browser: Browser, page_file: Path, size: tuple[int, int]) -> None:
    """Drawing a figure does not move what is below it."""
    tops = "[...document.querySelectorAll('figure, h2, h3, table')].map(e => e.getBoundingClientRect().top + scrollY)"
    with visit(browser, page_file, size=size) as found:
        before = found.page.evaluate(tops)
        undrawn = found.page.locator("figure:not([data-drawn])").count()
        found.scroll_through()
        assert undrawn > 20
        # Fonts of other machines may be a little taller.
        assert found.page.evaluate(tops) == pytest.approx(before, abs=8)


def test_runs_sorted_by_a_column(browser: Browser, page_file: Path, all_reports: list[Json]) -> None:
    with visit(browser, page_file) as found:
        found.see("time")

        def column(key: str) -> list[float]:
            values = found.page.locator(f'#runs td[data-key="{key}"]').evaluate_all(
                "all => all.map(c => c.dataset.value)"
            )
            return [float(value) for value in values if value != "None"]

        def sort(name: str) -> str:
            # Not by its accessible name, which contains an arrow.
            button = found.page.locator(f'#runs thead button:text-is("{name}")')
            button.click()
            return str(button.evaluate("button => button.closest('th').getAttribute('aria-sort')"))

        for name, key in (
            ("score", "score"),
            ("difference", "difference"),
            ("time", "total"),
            ("steps / s", "steps_per_second"),
        ):
            values = column(key)
            assert sort(name) == "ascending"
            assert column(key) == sorted(values)
            assert sort(name) == "descending"
            assert column(key) == sorted(values, reverse=True)
        names = found.page.locator("#runs tbody th").all_inner_texts()
        assert sort("run") == "ascending"
        assert found.page.locator("#runs tbody th").all_inner_texts() == sorted(names, key=str.lower)
        assert found.page.locator("#runs th[aria-sort=ascending], #runs th[aria-sort=descending]").count() == 1
        assert found.page.locator("#runs tbody tr").count() == len(all_reports)
