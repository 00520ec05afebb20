"""Texts of a run, which somebody else may have written, in tables that other programs show."""

from __future__ import annotations

import re

# What makes a spreadsheet compute a cell: a formula, also with the full-width signs of East Asian keyboards.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n|%]")
_NUMBERS = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?: [-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)*")


def in_markdown(text: str) -> str:
    """A text that Markdown shows as it is, in one line: no HTML, no links, no code."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(text.split()))
    return re.sub(r"([`])|(\])(?=[(\[])", r"\\\1\2", text.replace("<", "&lt;"))


def in_spreadsheet(text: str) -> str:
    """A text that a spreadsheet does not compute: with an apostrophe before what it would take for a formula."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBERS.fullmatch(text) else text
