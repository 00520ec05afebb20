"""Damage to the files that runs and sweeps leave: reports, plans, metrics and models, by field, by byte and by kind."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
Place = tuple[str | int, ...]

# Values that a key may hold after damage; a text of JSON each, since some have no value in Python.
ODD = (
    *("null", "true", "0", "-1", "5", "0.5", "1e999", "-1e308", "NaN", "9223372036854775808", "1" * 5000, '""', "[]"),
    *('"word"', '"\\u0000"', '"\\ud800"', '"a\\nb"', '"<b>|x"', f'"{"x" * 5000}"', "{}", "[null]", '["a"]', "[[[]]]"),
    *('{"a": null}', '{"": {"": {}}}', "[" * 400 + "]" * 400, '{"a":' * 20000 + "1" + "}" * 20000, '"../../../etc"'),
)


@dataclass(frozen=True)
class Damage:
    """One file that is not as it was written.

    Args:
        file: relative to the world.
        how: in words, to reproduce it.
        content: what the file holds; None where `make` puts something else in its place.
        make: puts something else in the file's place.
    """

    file: Path
    how: str
    content: bytes | None = None
    make: Callable[[Path], None] | None = None


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """The places of all values in nested objects and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*above, key)
        yield from places(item, (*above, key))


@st.composite
def damages(draw: Draw, world: Path) -> Damage:
    """Damage to one file below `world`."""
    files = sorted(path for path in world.rglob("*") if path.is_file() and path.name in _NAMES)
    file = draw(st.sampled_from(files))
    kinds = ["bits", "cut", "zeros", "kind", *(["field"] * 6 if file.suffix in (".json", ".jsonl") else [])]
    kind = draw(st.sampled_from(kinds))
    near = file.relative_to(world)
    if kind == "kind":
        name = draw(st.sampled_from(sorted(_KINDS)))
        return Damage(near, name, make=_KINDS[name])
    whole = file.read_bytes()
    if kind == "field":
        return _damaged_field(draw, near, whole)
    at = draw(st.integers(0, len(whole) - 1))
    if kind == "bits":
        bit = draw(st.integers(0, 7))
        return Damage(near, f"bit {bit} of byte {at}", bytes([*whole[:at], whole[at] ^ 1 << bit, *whole[at + 1 :]]))
    return Damage(near, f"{kind} at {at}", whole[:at] + (b"" if kind == "cut" else bytes(len(whole) - at)))


_NAMES = ("report.json", "plan.json", "metrics.jsonl", "model.safetensors")


def _damaged_field(draw: Draw, near: Path, whole: bytes) -> Damage:
    """A value replaced or removed, or a bit flipped in a key, of the whole file or of one of its lines."""
    # The last line may be incomplete: the run that wrote it was killed.
    lines = [whole] if near.suffix == ".json" else whole.splitlines()[:-1]
    number = draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    place = draw(st.sampled_from(list(places(value))))
    odd = draw(st.sampled_from((*ODD, "removed", "key")))
    lines[number] = replaced(value, place, odd).encode()
    return Damage(near, f"line {number}, {place}: {odd[:40]}", b"\n".join(lines))


def replaced(value: Any, place: Place, odd: str) -> str:
    """JSON in which one value is replaced by the text `odd`, left out (`removed`), or its key changed (`key`)."""
    changed = copy.deepcopy(value)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    last = place[-1]
    if odd == "removed" or (odd == "key" and isinstance(last, int)):
        del holder[last]
    elif odd == "key":
        holder[chr(ord(last[:1] or "a") ^ 1) + last[1:]] = holder.pop(last)
    else:
        holder[last] = "\N{SNOWMAN}here"
        return json.dumps(changed).replace(json.dumps("\N{SNOWMAN}here"), odd)
    return json.dumps(changed)


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


# What may be in a file's place. No command may wait for it, or read it without end.
_KINDS: dict[str, Callable[[Path], None]] = {
    "a pipe": lambda path: os.mkfifo(path),
    "an endless device": _link("/dev/zero"),
    "a terminal": _link("/dev/tty"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nowhere": _link("/no/such/file"),
    "a folder": lambda path: path.mkdir(),
    "nothing": lambda path: None,
    "an empty file": lambda path: path.touch(),
}


class Damaged:
    """A context in which one file is damaged."""

    def __init__(self, world: Path, damage: Damage) -> None:
        self._file, self._damage = world / damage.file, damage

    def __enter__(self) -> None:
        self._whole = self._file.read_bytes()
        if self._damage.content is not None:
            self._file.write_bytes(self._damage.content)
        elif self._damage.make is not None:
            self._file.unlink()
            self._damage.make(self._file)

    def __exit__(self, *_: object) -> None:
        if self._file.is_dir() and not self._file.is_symlink():
            shutil.rmtree(self._file)
        self._file.unlink(missing_ok=True)
        self._file.write_bytes(self._whole)
