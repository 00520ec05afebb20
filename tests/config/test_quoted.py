"""Values of overrides in quotes, as Hydra reads them."""

from __future__ import annotations

from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from hydraprune.config.command_words import quoted


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n${}"), min_size=1))
@example("a\\\\b")
@example("it's")
@example("ends\\")
@example("\\'")
@example("a b,c=[d]")
def test_hydra_reads_what_was_quoted(value: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"key={quoted(value)}"])
    assert override.value() == value
