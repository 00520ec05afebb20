"""HTML pages and SVG images, parsed without a browser."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

# Elements that are never closed.
VOID = {"meta", "link", "input"}


class Page(HTMLParser):
    """The elements and texts of a page in order; scripts and styles separately."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.code: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            self.code.append((self._open[-1], data))
        else:
            self.texts.append(data)

    @property
    def left_open(self) -> list[str]:
        return self._open

    def having(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.elements if name in attributes]

    @property
    def data(self) -> dict[str, Any]:
        """The data of the page's script."""
        found: dict[str, Any] = json.loads(next(code for _, code in self.code if code.lstrip().startswith("{")))
        return found


def marks(svg: ElementTree.Element) -> int:
    """The number of drawn marks: elements in groups with Vega's role mark."""
    found = 0
    for group in svg.iter("{http://www.w3.org/2000/svg}g"):
        kind = group.get("class", "")
        if "role-mark" in kind and "role-axis" not in kind:
            found += sum(1 for child in group if child.tag.endswith(("path", "text", "line")))
    return found
