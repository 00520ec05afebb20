"""Checkpoint files: nested state as safetensors, the rest as JSON in the header, with a checksum. Nothing is pickled.

`torch.save` with `torch.load(weights_only=True)` would need a file of its own for the stamp and the
checksum, unpickles (if only allowed classes), and could not read the checkpoints of earlier versions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hydraprune.utils.atomic import atomic_write
from hydraprune.utils.cache import digest


class StateError(ValueError):
    """A state that cannot be written to a file, or a file that cannot be used."""


def write_state(state: Any, stamp: Mapping[str, Any], path: Path) -> None:
    """Write a state atomically; it is on the disk when this returns.

    Args:
        state: nested dicts, lists and tuples of tensors on any device, numbers, strings, booleans and None.
        stamp: identifies what the state belongs to; JSON.

    Raises:
        StateError: the state holds a value of another type.
        OSError: the file cannot be written.
    """
    rest, found = split_tensors(state)
    text = {"stamp": json.dumps(stamp, sort_keys=True), "state": json.dumps(rest)}
    tensors = _without_shared_memory(found)
    try:
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, {**text, "checksum": _checksum(text, tensors)})
    except SafetensorError as error:
        raise OSError(str(error)) from None


def read_state(path: Path, stamp: Mapping[str, Any]) -> Any:
    """The state that `write_state` wrote with this stamp, bit for bit; its tensors are on the CPU.

    Raises:
        StateError: the file is incomplete or damaged, or has another stamp.
        OSError: the file cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
    except SafetensorError as error:
        raise StateError(f"incomplete file: {error}") from None
    text = {key: header.get(key, "") for key in ("stamp", "state")}
    if header.get("checksum") != _checksum(text, tensors):
        raise StateError("damaged file: wrong checksum")
    if json.loads(text["stamp"]) != json.loads(json.dumps(stamp)):
        raise StateError(_difference(json.loads(text["stamp"]), stamp))
    return _join(json.loads(text["state"]), tensors)


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """How the stamp of a file differs from the one asked for, in words."""
    if found.get("run") != wanted.get("run"):
        return "it belongs to another run"
    before, now = (
        {f"{k}.{n}": v for k, item in stamp.items() if isinstance(item, Mapping) for n, v in item.items()}
        for stamp in (found, wanted)
    )
    changed = [f"{key}={value}, now {now.get(key)}" for key, value in before.items() if now.get(key) != value]
    return f"it was written with {'; '.join(changed) or 'another version of hydraprune'}"


def _checksum(text: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    return digest(_contents(text, tensors))


def _contents(text: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    for key in sorted(text):
        yield f"{key} {text[key]}".encode()
    for name in sorted(tensors):
        yield f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode()
        yield bytes_of(tensors[name])


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor; a view where it is contiguous and on the CPU."""
    flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def split_tensors(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """A state as (JSON in which every container is tagged with its type, its tensors by path).

    Raises:
        StateError: naming the value that has no form in JSON.
    """
    tensors: dict[str, Tensor] = {}
    return _split(state, "", tensors), tensors


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # With its strides: fused optimizers depend on the memory format.
        stride = torch.empty_like(value, device="meta").stride()
        tensors[path] = value.detach().cpu().contiguous()
        return {"tensor": path, "stride": list(stride)}
    if isinstance(value, Mapping):
        return {"dict": [[_scalar(key, path), _split(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_split(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]}
    return _scalar(value, path)


def _scalar(value: Any, path: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise StateError(f"{path.strip('/')} holds a {type(value).__name__}, which has no form in JSON")


def _without_shared_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with copies of those that share memory with another: safetensors refuses these."""
    result, seen = {}, set()
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return result


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `split_tensors`; tensors are copied."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        found = tensors[value["tensor"]]
        return torch.empty_strided(found.shape, value["stride"], dtype=found.dtype).copy_(found)
    if "dict" in value:
        return {key: _join(item, tensors) for key, item in value["dict"]}
    ((kind, items),) = value.items()
    joined = [_join(item, tensors) for item in items]
    return joined if kind == "list" else tuple(joined)
