"""Checkpoint files: a state is restored bit for bit, or the file is refused."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from hydraprune.utils.tensor_io import StateError, bytes_of, read_state, write_state

STAMP = {"run": "a", "versions": {"torch": "2"}}


def example() -> dict[str, Any]:
    table = torch.arange(6.0).view(2, 3)
    return {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": table}, 1: {}},
        "groups": [{"lr": 0.1, "betas": (0.9, 0.98), "fused": True, "foreach": None, "params": [0, 1]}],
        "nothing": [torch.empty(0, 4), torch.zeros(2, dtype=torch.bool), torch.tensor([1.5, -0.0]).bfloat16()],
        "numbers": (math.inf, 0.1 + 0.2, -0.0, 2**80, "tensor"),
        "twice": [table, table[1]],
        "random": random.getstate(),
        "generator": torch.get_rng_state(),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride()) and bytes_of(
            one
        ) == bytes_of(other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def test_a_state_keeps_its_types_and_bits(tmp_path: Path) -> None:
    state = example()
    write_state(state, STAMP, tmp_path / "s.safetensors")
    assert same(read_state(tmp_path / "s.safetensors", STAMP), state)
    assert [file.name for file in tmp_path.iterdir()] == ["s.safetensors"]


def test_strides_are_restored(tmp_path: Path) -> None:
    transposed = torch.arange(6.0).view(2, 3).t()
    write_state([transposed, transposed.expand(2, 3, 2)], STAMP, tmp_path / "s")
    restored, expanded = read_state(tmp_path / "s", STAMP)
    assert torch.equal(restored, transposed)
    assert restored.stride() == transposed.stride()
    assert torch.equal(expanded, transposed.expand(2, 3, 2))


def test_a_restored_tensor_is_independent_of_the_file(tmp_path: Path) -> None:
    write_state([torch.ones(3)], STAMP, tmp_path / "s")
    (read,) = read_state(tmp_path / "s", STAMP)
    read.zero_()
    assert read_state(tmp_path / "s", STAMP)[0].tolist() == [1, 1, 1]


def test_a_file_with_another_stamp_is_refused(tmp_path: Path) -> None:
    write_state(example(), STAMP, tmp_path / "s")
    for stamp, expected in (
        ({**STAMP, "run": "b"}, "another run"),
        ({**STAMP, "versions": {"torch": "3"}}, "with versions.torch=2, now 3"),
        ({"run": "a"}, "with versions.torch=2, now None"),
        ({**STAMP, "form": 9}, "another version of hydraprune"),
    ):
        with pytest.raises(StateError, match=expected):
            read_state(tmp_path / "s", stamp)


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "s"
    state = [torch.arange(4), {"a": 1.5}, (None, "x")]
    write_state(state, STAMP, path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << (at % 8)
        path.write_bytes(flipped)
        with pytest.raises(StateError):
            read_state(path, STAMP)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_state(example(), STAMP, path)
    whole = path.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(StateError):
            read_state(path, STAMP)


def test_a_value_without_a_json_form_is_named(tmp_path: Path) -> None:
    for thing in (object(), lambda: 0, {1, 2}):
        with pytest.raises(StateError, match=r"optimizer/state/0/odd holds a"):
            write_state({"optimizer": {"state": {0: {"odd": thing}}}}, STAMP, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "s"
    write_state([1], STAMP, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(OSError, match="too large"):
            write_state([torch.zeros(100_000)], STAMP, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_state(path, STAMP) == [1]
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
