"""A page in a browser: opened, watched, scrolled, read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page

DESKTOP, PHONE = (1280, 900), (390, 844)
# Milliseconds after which a thing does not happen any more, on a busy machine too.
_PATIENCE = 60_000
AS_PHONE = {"device_scale_factor": 2, "is_mobile": True, "has_touch": True}


@dataclass
class Visit:
    """An open page.

    Args:
        asked: addresses that it requested.
        heard: errors of its console and its scripts.
        warned: what else its console says of itself.
    """

    page: Page
    asked: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def scroll_through(self) -> None:
        """To the end and back, as a reader does, until every figure that is not hidden is drawn."""
        at, height = 0, 1
        while at < height:
            self.page.evaluate("top => scrollTo({top, behavior: 'instant'})", at)
            self.page.wait_for_timeout(20)
            at, height = at + 500, self.page.evaluate("document.documentElement.scrollHeight")
        # A busy machine shows no frame of what was passed by so fast: back to what is still to be drawn.
        for _ in range(_PATIENCE // 50):
            if not self.page.evaluate(
                f"(() => {{ const next = {_SHOWN}.find(figure => !figure.dataset.drawn);"
                "next?.scrollIntoView({block: 'center', behavior: 'instant'}); return next !== undefined; })()"
            ):
                break
            self.page.wait_for_timeout(50)
        else:
            raise AssertionError("not every figure was drawn")
        self.page.evaluate("scrollTo({top: 0, behavior: 'instant'})")

    def see(self, start: str) -> None:
        """Scroll to the figures whose ids begin so, until they are drawn."""
        for figure in self.figure(start).all():
            # Once more where others, drawn meanwhile, have pushed it away.
            for _ in range(_PATIENCE // 50):
                figure.scroll_into_view_if_needed()
                if figure.get_attribute("data-drawn"):
                    break
                self.page.wait_for_timeout(50)
            else:
                raise AssertionError(f"{figure} was not drawn")

    def choose(self, kind: str, value: str) -> None:
        """Click a chip of the filters."""
        self.page.locator("label.chip", has=self.page.locator(f'input[name="{kind}"][value="{value}"]')).click()

    def figure(self, start: str) -> Locator:
        """The figure whose id begins so."""
        return self.page.locator(f'figure[id^="{start}"]')

    def table(self, start: str) -> list[dict[str, str]]:
        """A figure's rows, as its own table shows them."""
        figure = self.figure(start)
        while figure.locator("details").get_attribute("open") is None:
            # Again where figures that were drawn meanwhile have pushed it from under the pointer.
            figure.locator("summary").click()
        figure.locator("details table").wait_for()
        names, *rows = figure.locator("details table tr").evaluate_all(
            "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def seeds_drawn(self, start: str) -> list[str]:
        """What each small mark of a figure says of itself."""
        labels = self.figure(start).locator("svg [aria-label*='seed: ']")
        return [
            str(text) for text in labels.evaluate_all("marks => marks.map(mark => mark.getAttribute('aria-label'))")
        ]

    def shown(self, selector: str, attribute: str) -> list[str]:
        """An attribute of each element that can be seen."""
        found: list[str] = self.page.locator(selector).evaluate_all(
            "(all, name) => all.filter(e => e.checkVisibility()).map(e => e.getAttribute(name))", attribute
        )
        return found

    def shapes(self) -> list[dict[str, Any]]:
        """Of each figure that is to be seen: its picture's size beside the room that it has."""
        found: list[dict[str, Any]] = self.page.evaluate(
            _SHOWN + ".filter(f => f.querySelector('.plot').checkVisibility()).map(f => {"
            "const plot = f.querySelector('.plot'), drawn = plot.querySelector('svg, canvas');"
            "const box = drawn?.getBoundingClientRect();"
            "return {id: f.id, room: plot.clientWidth, width: box?.width ?? 0, height: box?.height ?? 0}; })"
        )
        return found


_SHOWN = "[...document.querySelectorAll('figure')].filter(figure => figure.checkVisibility())"


@contextmanager
def visit(
    browser: Browser, file: Path, size: tuple[int, int] = DESKTOP, words: str = "", **kind: Any
) -> Iterator[Visit]:
    """A fresh context, so that nothing of another visit is left.

    Args:
        words: behind the file's name, such as `#pattern=4x1`.
        kind: of browser, as playwright's `new_context` takes it.
    """
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, accept_downloads=True, **kind)
    context.set_default_timeout(_PATIENCE)
    page = context.new_page()
    found = Visit(page)
    page.on("request", lambda request: found.asked.append(request.url))
    page.on("console", lambda said: (found.heard if said.type == "error" else found.warned).append(said.text))
    page.on("pageerror", lambda error: found.heard.append(str(error)))
    page.goto(file.as_uri() + words)
    try:
        yield found
    finally:
        context.close()
