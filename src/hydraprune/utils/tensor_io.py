"""A nested state in one file: its tensors, the rest as JSON, and a checksum over both. Nothing is pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hydraprune.utils.cache import digest


class StateError(ValueError):
    """A state that cannot be kept in a file, or a file that cannot be used."""


def write_state(state: Any, stamp: Mapping[str, Any], path: Path) -> None:
    """Write a state, whole or not at all, and have it on the disk before this returns.

    Args:
        state: dicts, lists and tuples of tensors on any device, numbers, words, booleans and None.
        stamp: whose state it is; JSON.

    Raises:
        StateError: something in the state is none of these.
        OSError: the file cannot be written.
    """
    found: dict[str, Tensor] = {}
    text = {"stamp": json.dumps(stamp, sort_keys=True), "state": json.dumps(_parted(state, "", found))}
    tensors = _apart(found)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(tensors, temporary, {**text, "checksum": _checksum(text, tensors)})
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except SafetensorError as error:
        raise OSError(str(error)) from None
    finally:
        temporary.unlink(missing_ok=True)
    # The new name, too; not every system lets a folder be opened.
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_state(path: Path, stamp: Mapping[str, Any]) -> Any:
    """The state that `write_state` wrote with that stamp, bit for bit; its tensors are on the CPU.

    Raises:
        StateError: the file is not whole, or has another stamp.
        OSError: the file cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no dict
    except SafetensorError as error:
        raise StateError(f"it is not whole: {error}") from None
    text = {key: said.get(key, "") for key in ("stamp", "state")}
    if said.get("checksum") != _checksum(text, tensors):
        raise StateError("it is damaged: its checksum does not hold")
    if json.loads(text["stamp"]) != json.loads(json.dumps(stamp)):
        raise StateError(_difference(json.loads(text["stamp"]), stamp))
    return _joined(json.loads(text["state"]), tensors)


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What a stamp says otherwise than it should, in words."""
    if found.get("run") != wanted.get("run"):
        return "it is of another run"
    sides = [
        {f"{k}.{n}": v for k, item in stamp.items() if isinstance(item, Mapping) for n, v in item.items()}
        for stamp in (found, wanted)
    ]
    others = [
        f"{key}={value}, now {sides[1].get(key)}" for key, value in sides[0].items() if sides[1].get(key) != value
    ]
    return f"it was written with {'; '.join(others) or 'another version of hydraprune'}"


def _checksum(text: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    return digest(_contents(text, tensors))


def _contents(text: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    for key in sorted(text):
        yield f"{key} {text[key]}".encode()
    for name in sorted(tensors):
        yield f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode()
        yield bytes_of(tensors[name])


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, in place where it is contiguous and on the CPU."""
    flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def _parted(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, every container with its kind; its tensors go into `tensors` under their paths.

    Raises:
        StateError: naming what has no form in JSON.
    """
    if isinstance(value, Tensor):
        # The order of its axes in memory is kept as well: fused optimizers go by it.
        stride = torch.empty_like(value, device="meta").stride()
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name, "stride": list(stride)}
    if isinstance(value, Mapping):
        return {"dict": [[_plain(key, name), _parted(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_parted(item, f"{name}/{place}", tensors) for place, item in enumerate(value)]}
    return _plain(value, name)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, with copies of those that share memory with another, which the format does not allow."""
    result, seen = {}, set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return result


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise StateError(f"its {name.strip('/')} holds a {type(value).__name__}, which has no form in JSON")


def _joined(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_parted` took apart; tensors are copies."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        found = tensors[value["tensor"]]
        return torch.empty_strided(found.shape, value["stride"], dtype=found.dtype).copy_(found)
    if "dict" in value:
        return {key: _joined(item, tensors) for key, item in value["dict"]}
    ((kind, items),) = value.items()
    joined = [_joined(item, tensors) for item in items]
    return joined if kind == "list" else tuple(joined)
