"""A page in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page

DESKTOP, PHONE = (1280, 900), (390, 844)
# Time limit in milliseconds, for a busy machine.
_PATIENCE = 60_000
AS_PHONE = {"device_scale_factor": 2, "is_mobile": True, "has_touch": True}


@dataclass
class Visit:
    """An open page.

    Args:
        requested: URLs that it requested.
        errors: of its console and its scripts.
        messages: other messages of its console.
    """

    page: Page
    requested: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def scroll_through(self) -> None:
        """Scroll to the end and back, until every visible figure is drawn."""
        at, height = 0, 1
        while at < height:
            self.page.evaluate("top => scrollTo({top, behavior: 'instant'})", at)
            self.page.wait_for_timeout(20)
            at, height = at + 500, self.page.evaluate("document.documentElement.scrollHeight")
        # A busy machine may skip frames: scroll to figures that are not drawn yet, from the top, since the page learns
        # of those that come into view, in a frame of its own.
        for _ in range(_PATIENCE // 50):
            if not self.page.evaluate(
                f"(async () => {{ const next = {_SHOWN}.find(figure => !figure.dataset.drawn);"
                "const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));"
                "if (!next) return false; scrollTo({top: 0, behavior: 'instant'}); await frame();"
                "next.scrollIntoView({block: 'center', behavior: 'instant'}); await frame(); return true; })()"
            ):
                break
            self.page.wait_for_timeout(50)
        else:
            raise AssertionError("not every figure was drawn")
        self.page.evaluate("scrollTo({top: 0, behavior: 'instant'})")

    def see(self, start: str) -> None:
        """Scroll to the figures whose ids begin so, until they are drawn."""
        for figure in self.figure(start).all():
            # Again if figures drawn in the meantime have moved it.
            for _ in range(_PATIENCE // 50):
                figure.scroll_into_view_if_needed()
                if figure.get_attribute("data-drawn"):
                    break
                self.page.wait_for_timeout(50)
            else:
                raise AssertionError(f"{figure} was not drawn")

    def choose(self, kind: str, value: str) -> None:
        """Click a filter."""
        self.page.locator("label.chip", has=self.page.locator(f'input[name="{kind}"][value="{value}"]')).click()

    def figure(self, start: str) -> Locator:
        """The figure whose id begins so."""
        return self.page.locator(f'figure[id^="{start}"]')

    def table(self, start: str) -> list[dict[str, str]]:
        """A figure's rows, as its own table shows them."""
        figure = self.figure(start)
        while figure.locator("details").get_attribute("open") is None:
            # Again if figures drawn in the meantime have moved it.
            figure.locator("summary").click()
        figure.locator("details table").wait_for()
        names, *rows = figure.locator("details table tr").evaluate_all(
            "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def seeds_drawn(self, start: str) -> list[str]:
        """The accessible names of the marks of single seeds."""
        labels = self.figure(start).locator("svg [aria-label*='seed: ']")
        return [
            str(text) for text in labels.evaluate_all("marks => marks.map(mark => mark.getAttribute('aria-label'))")
        ]

    def shown(self, selector: str, attribute: str) -> list[str]:
        """An attribute of each visible element."""
        found: list[str] = self.page.locator(selector).evaluate_all(
            "(all, name) => all.filter(e => e.checkVisibility()).map(e => e.getAttribute(name))", attribute
        )
        return found

    def shapes(self) -> list[dict[str, Any]]:
        """The size of each visible figure's image, and the width of its element."""
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
    browser: Browser, file: Path, size: tuple[int, int] = DESKTOP, hash: str = "", **kind: Any
) -> Iterator[Visit]:
    """Open a page in a new browser context.

    Args:
        hash: appended to its URL, such as `#pattern=4x1`.
        kind: arguments of playwright's `new_context`.
    """
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, accept_downloads=True, **kind)
    context.set_default_timeout(_PATIENCE)
    page = context.new_page()
    found = Visit(page)
    page.on("request", lambda request: found.requested.append(request.url))
    page.on(
        "console", lambda message: (found.errors if message.type == "error" else found.messages).append(message.text)
    )
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.goto(file.as_uri() + hash)
    try:
        yield found
    finally:
        context.close()
