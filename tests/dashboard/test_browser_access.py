"""Accessibility of the page: screen readers, keyboard and contrast."""

from __future__ import annotations

import html
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser_helpers import AS_PHONE, PHONE, Visit, visit
from playwright.sync_api import Browser

pytestmark = pytest.mark.xdist_group("browser")

CONTROLS = "a[href], button, input, select, summary, [tabindex='0']"
# The accessible name of an element, by the part of the rules that the page uses.
NAME = """element => {
    const text = (id) => document.getElementById(id)?.textContent ?? "";
    const named = element.getAttribute("aria-label")
        ?? element.getAttribute("aria-labelledby")?.split(" ").map(text).join(" ")
        ?? ([...(element.labels ?? [])].map((label) => label.textContent).join(" ") || element.textContent);
    return named.trim(); }"""


def test_every_control_and_image_has_a_name(browser: Browser, page_file: Path) -> None:
    with visit(browser, page_file) as found:
        page = found.page
        controls = page.locator(CONTROLS).evaluate_all(f"all => all.map({NAME})")
        assert len(controls) > 100
        assert all(controls)
        # With the figure's title, since buttons of all figures are alike.
        buttons = page.locator("figure button").evaluate_all(f"all => all.map({NAME})")
        titles = page.locator("figure h3").evaluate_all("all => all.map(h => h.firstChild.textContent.trim())")
        wanted = [(title, kind) for title in titles for kind in ("CSV", "SVG", "PNG")]
        assert all(title in name and kind in name for name, (title, kind) in zip(buttons, wanted, strict=True))
        # As the browser computes it.
        for kind, name in (("checkbox", "4x1"), ("checkbox", "sst2"), ("combobox", "metric"), ("button", "Show all")):
            assert page.get_by_role(kind, name=name, include_hidden=True).count() == 1, name
        for group in ("task", "model", "pattern"):
            assert page.get_by_role("group", name=group, exact=True).count() == 1
        assert page.get_by_role("figure", name="Cost of sparsity").count() == 1
        tree = page.locator("body").aria_snapshot()
        for text in ("banner", "main", "contentinfo", 'heading "Results" [level=2]', 'columnheader "sparsity"'):
            assert text in tree, text
        assert "- img\n" not in tree
        assert page.locator("table tbody tr").evaluate_all("rows => rows.every(r => r.querySelector('th[scope=row]'))")


def test_a_figure_keeps_its_text_alternative_when_it_is_drawn(browser: Browser, page_file: Path) -> None:
    with visit(browser, page_file) as found:
        words = "all => all.map(figure => figure.querySelector('[role=img]')?.getAttribute('aria-label'))"
        written = re.findall(r'role="img" aria-label="([^"]+)"', page_file.read_text(encoding="utf-8"))
        found.scroll_through()
        spoken = found.page.locator("figure").evaluate_all(words)
        assert spoken == [html.unescape(text) for text in written]
        assert len(spoken) == found.page.locator("figure[data-drawn]").count() == 29
        assert all(len(text) > 20 and any(letter.isdigit() for letter in text) for text in spoken)
        assert found.page.get_by_role("img", name="mean f1 0.8808 at 89.6% zeros over 3 seeds").count() == 1


def test_headings_are_in_order(browser: Browser, page_file: Path) -> None:
    with visit(browser, page_file) as found:
        levels = found.page.locator("h1, h2, h3, h4, h5, h6").evaluate_all("all => all.map(h => Number(h.tagName[1]))")
        empty = found.page.locator("h1, h2, h3").evaluate_all("all => all.filter(h => !h.textContent.trim()).length")
    assert (levels.count(1), levels[0], empty) == (1, 1, 0)
    assert max(after - before for before, after in pairwise(levels)) == 1


OUTLINE = """() => {
    const element = document.activeElement;
    const seen = element.matches(".chip input") ? element.nextElementSibling : element;
    const style = getComputedStyle(seen), box = seen.getBoundingClientRect();
    return {what: element.outerHTML.slice(0, 80), line: style.outlineStyle, width: parseFloat(style.outlineWidth),
        area: box.width * box.height, body: element === document.body}; }"""


def test_all_controls_are_reached_by_tab_and_show_their_focus(browser: Browser, page_file: Path) -> None:
    with visit(browser, page_file) as found:
        controls = found.page.locator(CONTROLS).evaluate_all("all => all.filter(e => e.checkVisibility()).length")
        stops = []
        while True:
            found.page.keyboard.press("Tab")
            at = found.page.evaluate(OUTLINE)
            if at["body"] or len(stops) > controls:
                break
            stops.append(at)
        assert len(stops) == controls
        for at in stops:
            assert at["line"] not in ("none", ""), at
            assert at["width"] >= 2, at
            assert at["area"] > 50, at


def test_wide_tables_are_scrolled_by_keyboard(browser: Browser, page_file: Path) -> None:
    with visit(browser, page_file, (800, 600)) as found:
        region = found.page.locator("#runs > .scroll")
        region.focus()
        assert region.evaluate("element => element.scrollWidth - element.clientWidth") > 0
        found.page.keyboard.press("ArrowRight")
        found.page.wait_for_function("document.querySelector('#runs > .scroll').scrollLeft > 0")


# The contrast of texts with their backgrounds, painted on a canvas, since colors have many notations.
CONTRAST = """selectors => {
    const brush = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
    const over = (colors) => {
        brush.clearRect(0, 0, 1, 1);
        for (const [color, alpha] of colors) {
            brush.globalAlpha = alpha; brush.fillStyle = color; brush.fillRect(0, 0, 1, 1);
        }
        return [...brush.getImageData(0, 0, 1, 1).data];
    };
    const light = (rgb) => {
        const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    for (const selector of selectors) for (const element of document.querySelectorAll(selector)) {
        const words = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!(words || element.matches("select")) || !element.checkVisibility()) continue;
        const line = [];
        for (let at = element; at; at = at.parentElement) line.unshift(at);
        const grounds = line.map((at) => [getComputedStyle(at).backgroundColor, 1]);
        const opacity = line.reduce((all, at) => all * Number(getComputedStyle(at).opacity), 1);
        const style = getComputedStyle(element), ink = element instanceof SVGElement ? style.fill : style.color;
        const [a, b] = [light(over(grounds).slice(0, 3)), light(over([...grounds, [ink, opacity]]).slice(0, 3))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        found.push({selector, ratio, words: element.textContent.trim().slice(0, 30)});
    }
    return found; }"""

TEXTS = (
    "h1", "h2", "h2 span", "h3", ".measure", ".brand span", ".tiles dt", ".tiles dd", "legend", ".chip span",
    "button", "select", ".choose", "figcaption", ".note", "summary", ".legend li", "th", "th small", "th button", "td",
    "td span", "td small", ".theirs", "td strong", ".status", ".failures code", ".failures span", "footer .inner",
)  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_texts_have_contrast_with_their_background(scheme: str, size: str, browser: Browser, page_file: Path) -> None:
    kind: dict[str, Any] = {"color_scheme": scheme}
    if size == "phone":
        kind |= {"size": PHONE, **AS_PHONE}
    with visit(browser, page_file, **kind) as found:
        found.table("accuracy-mrpc")
        found.see("accuracy-sst2-tiny")
        weak = worst(found, TEXTS)
        found.choose("pattern", "2:4")  # a chip that is chosen, and a figure without rows
        chosen = worst(found, (".chip input:checked + span", ".none", "#shown", ".filters button"))
    assert len(chosen) == 4
    weak |= chosen
    assert set(weak) == {*TEXTS, *chosen}
    assert {name: at for name, at in weak.items() if at[0] < 4.5} == {}


def worst(found: Visit, selectors: tuple[str, ...]) -> dict[str, tuple[float, str]]:
    """The text with the lowest contrast for each selector."""
    least: dict[str, tuple[float, str]] = {}
    for at in found.page.evaluate(CONTRAST, selectors):
        least[at["selector"]] = min(least.get(at["selector"], (99.0, "")), (round(at["ratio"], 2), at["words"]))
    return least
