"""Orders of ours -> the text of an experiment file for Hydra."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from hydraprune.convert.schema import Entry
from hydraprune.convert.translate import POST_TRAINING, Orders, orders_of

_GROUPS = ("pruner", "scheduler", "progressive", "regularizer")
# More words, or longer, and a part is called by its number.
_MOST_WORDS, _LONGEST_NAME = 3, 30


@dataclass(frozen=True)
class Converted:
    """An experiment file.

    Args:
        text: of the file.
        notes: what was dropped or means something else here; they stand at the top of the text too.
    """

    text: str
    notes: Sequence[str]


def written(entries: Sequence[Entry], steps: int | None, origin: str, notes: Sequence[str] = ()) -> Converted:
    """The experiment that does what the entries say.

    Args:
        steps: of the whole training; may be None when no entry prunes over a window.
        origin: what was read, for the file's first lines.
        notes: what reading it left out.

    Raises:
        UserError: see `orders_of`.
    """
    orders = [orders_of(entry, steps) for entry in entries]
    names = part_names(entries)
    notes = [*notes, *_notes(orders, names)]
    counted = any("frequency" in o.nodes.get("scheduler", ("", {}))[1] for o in orders)
    length = f", for a training of {steps} steps" if counted else ""
    head = [
        "# @package _global_",
        f"# From {origin}, a Neural Compressor 2.x configuration{length}.",
        *_comments(notes),
    ]
    if len(orders) == 1:
        defaults, body = _alone(orders[0])
    else:
        defaults, body = _together(orders, names)
    lines = [*head, "defaults:", *(f"  - {entry}" for entry in defaults), *(["", _dumped(body)] if body else [""])]
    return Converted("\n".join(lines), notes)


def _notes(orders: Sequence[Orders], names: Sequence[str]) -> list[str]:
    """Each note once; with the part that it is about, where it is not about all of them."""
    whose: dict[str, list[str]] = {}
    for name, each in zip(names, orders, strict=True):
        for note in each.notes:
            whose.setdefault(note, []).append(name)
    return [note if len(about) == len(orders) else f"{note} (part {', '.join(about)})" for note, about in whose.items()]


def _comments(notes: Sequence[str]) -> list[str]:
    return [f"# {' '.join(note.split())}" for note in notes]


def _dumped(body: dict[str, Any]) -> str:
    # Blocks for what has keys below it, one line for what has none: as the files in conf/.
    text: str = yaml.safe_dump(body, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return text


def _alone(orders: Orders) -> tuple[list[str], dict[str, Any]]:
    nodes = {group: orders.nodes[group] for group in _GROUPS if group in orders.nodes}
    body: dict[str, Any] = {"pattern": orders.keys} if orders.keys else {}
    body |= {group: keys for group, (_, keys) in nodes.items() if keys}
    return ["_self_", *_overrides({"pattern": orders.pattern} | {g: word for g, (word, _) in nodes.items()})], body


def _together(orders: Sequence[Orders], names: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """A mixed pattern. What all parts say alike is said once, for all."""
    shared = {
        g: orders[0].nodes.get(g) for g in _GROUPS if all(o.nodes.get(g) == orders[0].nodes.get(g) for o in orders)
    }
    common = {group: node for group, node in shared.items() if node is not None}
    chosen, parts = [], {}
    for name, each in zip(names, orders, strict=True):
        own = {group: node for group, node in each.nodes.items() if group not in shared}
        if each.pattern == "lock":
            parts[name] = _locked(each)
            continue
        chosen.append(f"/pattern@pattern.parts.{name}: {each.pattern}")
        parts[name] = {**each.keys, **{group: keys for group, (_, keys) in own.items() if keys}}
        for group, (word, _) in own.items():
            if word in POST_TRAINING:
                parts[name][group] = {"_target_": f"hydraprune.sparsity.{POST_TRAINING[word]}"}
            else:
                chosen.append(f"/{group}@pattern.parts.{name}.{group}: {word}")
    body: dict[str, Any] = {"pattern": {"parts": parts}}
    body |= {group: keys for group, (_, keys) in common.items() if keys}
    # Hydra wants overrides last.
    words = {"pattern": "parts"} | {group: word for group, (word, _) in common.items()}
    return [*chosen, "_self_", *_overrides(words)], body


def _locked(orders: Orders) -> dict[str, Any]:
    """A lock as a part: conf/pattern/lock.yaml speaks for the whole config, so here its class is named."""
    layers = {"_target_": "hydraprune.sparsity.Layers", **orders.keys.get("layers", {})}
    return {"_target_": "hydraprune.sparsity.lock", "layers": layers}


def _overrides(words: dict[str, str]) -> list[str]:
    return [f"override /{group}: {word}" for group, word in words.items()]


def part_names(entries: Sequence[Entry]) -> list[str]:
    """A name for each part: of its layers where they have a short one, else part1, part2."""
    wanted = [_layer_words(entry["op_names"]) for entry in entries]
    return [
        name if name and wanted.count(name) == 1 and len(name) <= _LONGEST_NAME else f"part{index}"
        for index, name in enumerate(wanted, 1)
    ]


def _layer_words(expressions: Sequence[str]) -> str:
    # `.*layer\.\d+\.attention\.(query|key)` -> layer_attention_query_key
    text = re.sub(r"\\[A-Za-z]", " ", " ".join(expressions))
    words = [word.strip("_") for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text)]
    distinct = list(dict.fromkeys(word for word in words if word))
    return "_".join(distinct) if len(distinct) <= _MOST_WORDS else ""
