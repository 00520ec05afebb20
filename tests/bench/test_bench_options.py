"""Options of a bench, the words of its command line, and the machine that it describes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydraprune.bench.command import split_words
from hydraprune.bench.machine import cores_for, machine
from hydraprune.bench.options import PRECISIONS, BenchOptions, Side, numbers_of, words_of
from hydraprune.errors import UserError

WORDS = st.lists(st.sampled_from(sorted(PRECISIONS)), min_size=1)


@given(WORDS, st.sets(st.sampled_from(["fp32", "bf16", "int8"]), min_size=1))
def test_sides_are_each_engine_with_each_of_its_precisions_once(engines: list[str], precisions: set[str]) -> None:
    expected = {Side(e, p) for e in engines for p in PRECISIONS[e] if p in precisions}
    if not expected:
        with pytest.raises(UserError, match="has none of"):
            BenchOptions(engines=engines, precisions=sorted(precisions))
        return
    sides = BenchOptions(engines=engines, precisions=sorted(precisions)).sides
    assert set(sides) == expected
    assert len(sides) == len(expected)
    assert words_of(" , ".join(engines)) == tuple(engines)


@given(st.lists(st.integers(0, 10**8), min_size=1, unique=True))
def test_numbers_of_reads_what_is_typed(numbers: list[int]) -> None:
    assert numbers_of(",".join(map(str, numbers)), "--batch") == tuple(numbers)


@pytest.mark.parametrize("text", ["", "1,,2", "-1", "1.5", "eight", "1;2", "9" * 12, "\u0661"])
def test_what_is_no_number_is_refused(text: str, bad_input: None) -> None:
    with pytest.raises(UserError, match="--batch"):
        numbers_of(text, "--batch")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--engines", "torch,tensorrt"), "--engines torch,tensorrt: 'tensorrt' is not known"),
        (("--precisions", "fp8"), "--precisions fp8: 'fp8' is not known"),
        (("--engines", "onnxruntime", "--precisions", "bf16"), "onnxruntime has none of bf16"),
        (("--engines", ","), "no engine has none of"),
        (("--batch", "0"), "--batch 0: must be from 1"),
        (("--length", "-3"), "--length -3: must be whole numbers"),
        (("--threads", "1,2"), "--threads 1,2: must be one number"),
        (("--threads", "1000"), "cores"),
        (("--rounds", "0"), "--rounds 0: must be from 1"),
        (("--out", "taken"), "holds bench.json already"),
        (("--out", "taken/bench.json"), "is a file"),
        (("training.device=cpu",), "a task is needed"),
    ],
)
def test_a_bad_option_is_one_line(
    words: tuple[str, ...], named: str, hydraprune: Callable[..., Any], bad_input: None
) -> None:
    Path("taken").mkdir()
    Path("taken/bench.json").write_text("{}")
    done = hydraprune("bench", "no-such-model/at-all", *words)
    assert done.code == 2
    assert named in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_folder_with_an_equals_sign_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pattern=4x1,seed=1").mkdir()
    words = ["pattern=4x1,seed=1", "task=sst2", "/models/a=b/model", "+task.x=1"]
    assert split_words(words) == (["pattern=4x1,seed=1"], ["task=sst2", "/models/a=b/model", "+task.x=1"])


def test_the_machine_is_described_by_its_first_processor(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 amx_int8\n\n"
        "processor\t: 1\nmodel name\t: Another\nflags\t\t: avx512f\n"
    )
    here = machine([1], info)
    assert here.cpu == "Some CPU (cpu family 26, model 2)"
    assert here.flags == ("avx2", "amx_int8")
    assert here.pinned == (1,)
    assert machine(None, tmp_path / "missing").cpu


@pytest.mark.skipif(sys.platform != "linux", reason="no affinity elsewhere")
def test_engines_are_pinned_to_cores_that_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    assert set(cores_for(len(allowed)) or ()) == allowed
    assert len(cores_for(1) or ()) == 1
