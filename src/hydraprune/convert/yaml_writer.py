"""Translated pruners as the text of an experiment file for Hydra."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from hydraprune.convert.schema import Entry
from hydraprune.convert.translate import POST_TRAINING, Translation, translate

_GROUPS = ("pruner", "scheduler", "progressive", "regularizer")
# With more words or characters a part is numbered.
_MOST_WORDS, _LONGEST_NAME = 3, 30


@dataclass(frozen=True)
class Converted:
    """An experiment file.

    Args:
        text: of the file.
        notes: what was dropped or has another meaning here; also comments at the top of the text.
    """

    text: str
    notes: Sequence[str]


def as_experiment(entries: Sequence[Entry], steps: int | None, origin: str, notes: Sequence[str] = ()) -> Converted:
    """The experiment file for some pruners.

    Args:
        steps: of the whole training; may be None if every entry has a single update.
        origin: the name of the file that was read.
        notes: what the reader left out.

    Raises:
        UserError: see `translate`.
    """
    translations = [translate(entry, steps) for entry in entries]
    names = part_names(entries)
    notes = [*notes, *_notes(translations, names)]
    counted = any("frequency" in o.nodes.get("scheduler", ("", {}))[1] for o in translations)
    length = f", for a training of {steps} steps" if counted else ""
    head = [
        "# @package _global_",
        f"# From {origin}, a Neural Compressor 2.x configuration{length}.",
        *_comments(notes),
    ]
    if len(translations) == 1:
        defaults, body = _alone(translations[0])
    else:
        defaults, body = _together(translations, names)
    lines = [*head, "defaults:", *(f"  - {entry}" for entry in defaults), *(["", _dumped(body)] if body else [""])]
    return Converted("\n".join(lines), notes)


def _notes(translations: Sequence[Translation], names: Sequence[str]) -> list[str]:
    """Each note once, with its parts if it is not about all of them."""
    whose: dict[str, list[str]] = {}
    for name, each in zip(names, translations, strict=True):
        for note in each.notes:
            whose.setdefault(note, []).append(name)
    return [
        note if len(about) == len(translations) else f"{note} (part {', '.join(about)})"
        for note, about in whose.items()
    ]


def _comments(notes: Sequence[str]) -> list[str]:
    return [f"# {' '.join(note.split())}" for note in notes]


def _dumped(body: dict[str, Any]) -> str:
    # Nested keys as blocks and leaves in one line, as in conf/.
    text: str = yaml.safe_dump(body, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return text


def _alone(translation: Translation) -> tuple[list[str], dict[str, Any]]:
    nodes = {group: translation.nodes[group] for group in _GROUPS if group in translation.nodes}
    body: dict[str, Any] = {"pattern": translation.keys} if translation.keys else {}
    body |= {group: keys for group, (_, keys) in nodes.items() if keys}
    return ["_self_", *_overrides({"pattern": translation.pattern} | {g: word for g, (word, _) in nodes.items()})], body


def _together(translations: Sequence[Translation], names: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """A mixed pattern; nodes that all parts have in common are set once."""
    shared = {
        g: translations[0].nodes.get(g)
        for g in _GROUPS
        if all(o.nodes.get(g) == translations[0].nodes.get(g) for o in translations)
    }
    common = {group: node for group, node in shared.items() if node is not None}
    chosen, parts = [], {}
    for name, each in zip(names, translations, strict=True):
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
    # Hydra requires overrides at the end.
    words = {"pattern": "parts"} | {group: word for group, (word, _) in common.items()}
    return [*chosen, "_self_", *_overrides(words)], body


def _locked(translation: Translation) -> dict[str, Any]:
    """A lock as a part, by its class: conf/pattern/lock.yaml sets the whole config."""
    layers = {"_target_": "hydraprune.sparsity.Layers", **translation.keys.get("layers", {})}
    return {"_target_": "hydraprune.sparsity.lock", "layers": layers}


def _overrides(words: dict[str, str]) -> list[str]:
    return [f"override /{group}: {word}" for group, word in words.items()]


def part_names(entries: Sequence[Entry]) -> list[str]:
    """A name for each part: from its layers if that is short and unique, else part1, part2."""
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
