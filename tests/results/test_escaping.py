"""Texts in tables: nothing for a spreadsheet to compute, nothing for a browser to run."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_helpers import report

from hydraprune.results.escaping import in_markdown, in_spreadsheet
from hydraprune.results.matrix import matrix
from hydraprune.results.model_card import model_card
from hydraprune.results.tables import comma_separated, markdown

FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", " =1", "\uff1d1", "|x", "%x", "+task.path=a.csv")
NUMBERS = ("-0.5", "+1e-3", "-1 0 2.5", "0", "1", "")


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_a_text(text: str) -> None:
    assert in_spreadsheet(text) == f"'{text}"


@pytest.mark.parametrize("text", [*NUMBERS, "4x1", "a=b", "snip_momentum", "1.1-2"])
def test_numbers_and_plain_texts_stay(text: str) -> None:
    assert in_spreadsheet(text) == text


@given(st.sampled_from(["", " ", "\t"]), st.sampled_from("=+-@"), st.text(max_size=6))
def test_no_text_begins_like_a_formula(space: str, sign: str, rest: str) -> None:
    shown = in_spreadsheet(space + sign + rest)
    assert shown[0] == "'" or re.fullmatch(r"[-+0-9. eE]+", shown)


HTML = (
    "<img src=x>",
    "<b>bold</b>",
    "</td>",
    "a<!-- b",
    "&lt;b&gt;",
    "&#60;b&#62;",
    "[a](b)",
    "![a](b)",
    "`<b>`",
    "a\n# b",
)


@pytest.mark.parametrize("text", HTML)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    shown = in_markdown(text)
    assert "<" not in shown
    assert not re.search(r"&(?!lt;|amp;)#?\w+;", shown)
    assert "](" not in shown.replace("\\](", "")
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)`", shown)


@pytest.mark.parametrize("field", ["model", "task", "pattern", "recipe"])
@pytest.mark.parametrize("text", ["<img src=x>", "=1+1", "-2+3", "@a"])
def test_tables_hold_no_live_text(field: str, text: str) -> None:
    one = report(**{field: {"name": text, "source": text} if field == "recipe" else text})
    cells = matrix([one])
    assert "<img" not in markdown(cells, [(text, text)])
    assert "<img" not in model_card(one)
    for row in csv.DictReader(io.StringIO(comma_separated(cells))):
        for value in row.values():
            assert in_spreadsheet(value) == value
