"""Whatever is typed: a run that keeps its word, or one line that names a key and nothing made."""

from __future__ import annotations

import pytest
from fuzz_commands import Command, commands
from fuzz_oracle import Workplace
from hypothesis import HealthCheck, given, settings


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("fuzz"))


@settings(max_examples=40, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(commands())
def test_it_runs_and_keeps_its_word_or_says_in_one_line_what_is_wrong(fuzzed: Workplace, words: Command) -> None:
    fuzzed.judge(words)
