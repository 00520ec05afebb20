"""Runs that are killed at random moments and resumed: nothing is lost. benchmarks/random_kills.py tests more kills."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")

KILLS = 4
NAMES = ("4x1", "2:4, accumulation", "mixed, bf16", "4x1, progressive, logits", "1xchannel, rigl")


@pytest.fixture(scope="module")
def random_kills(pytestconfig: pytest.Config) -> Iterator[ModuleType]:
    place = pytestconfig.rootpath / "benchmarks" / "random_kills.py"
    spec = importlib.util.spec_from_file_location("random_kills", place)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["random_kills"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.prepare()
    yield module
    del sys.modules["random_kills"]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(
    name: str, random_kills: ModuleType, workplace: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("random kills", (KILLS, "recovered, bit for bit"))
    outcome = random_kills.study(name, random_kills.STUDIES[name], KILLS, 0, workplace)
    assert outcome.differences == []
    assert outcome.kills == KILLS


def test_differences_between_two_folders_are_found(random_kills: ModuleType, workplace: Path) -> None:
    for side in ("whole", "cut"):
        (workplace / side / "a").mkdir(parents=True)
        (workplace / side / "a" / "report.json").write_text(f'{{"seconds": "{side}", "steps": 3}}')
        (workplace / side / "a" / "metrics.jsonl").write_text("{}")
    sides = (workplace / "whole", workplace / "cut")
    assert random_kills.compare(*sides) == []
    (sides[1] / "a" / "metrics.jsonl").write_text("{}\n{}")
    (sides[1] / "sparse.held").write_text("x")
    (sides[0] / "a" / "report.json").write_text('{"steps": 4}')
    assert random_kills.compare(*sides) == [
        "only one side has sparse.held",
        "a/metrics.jsonl differs",
        "a/report.json differs",
    ]
