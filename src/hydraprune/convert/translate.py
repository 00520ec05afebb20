"""One pruner of theirs in our words: pattern, criterion, schedule, and what has no counterpart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hydraprune.convert.patterns import Shape, shape_of
from hydraprune.convert.schema import PROGRESSIVE, SCORED_BY_STEPS, TYPES, Entry, shown, types_of
from hydraprune.errors import UserError

ONE_UPDATE = "oneshot"
# What no pruner of ours needs to be told, and why.
_NOWHERE = {
    "low_memory_usage": "no counterpart; scores are kept in 32 bits",
    "resume_from_pruned_checkpoint": "zeros that are there at the start are measured anyway",
    "lock_init_sparsity": "zeros that are there at the start are measured anyway",
    "backend": "no counterpart; there is one",
}
_ONLY_MHA = "only mha reads it; pruning_type says it"
# Their types that ours does without training; and the classes that a part of a mixed pattern names.
POST_TRAINING = {"retrain_free": "RetrainFree", "sparse_gpt": "SparseGpt"}


@dataclass
class Orders:
    """One pruner in our words.

    Args:
        pattern: a word of conf/pattern, and below it `keys` of that file.
        nodes: group -> (word, keys), of pruner, scheduler, progressive and regularizer; only what is there.
        notes: what was dropped or changes its meaning.
    """

    pattern: str
    keys: dict[str, Any]
    nodes: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def orders_of(entry: Entry, steps: int | None) -> Orders:
    """What one entry says, in our words.

    Args:
        steps: of the whole training; needed unless the entry asks for a single update.

    Raises:
        UserError: values that do not go together, or no `steps` where they are needed.
    """
    shape = shape_of(entry)
    kind = entry["pruning_type"]
    notes = [note for key, why in _NOWHERE.items() for note in _dropped(entry, [key], why)]
    if shape.word != "heads":
        _check_kind(entry, shape)
        notes += _dropped(entry, ["criterion_type"], _ONLY_MHA)
    if kind == "pattern_lock" and shape.word != "heads":
        made = _lock(entry, notes)
    else:
        made = Orders(shape.word, {**shape.keys, **_amounts(entry, shape, notes)}, {}, notes)
        made.nodes["pruner"] = (_criterion(entry, shape, notes), {})
    if made.pattern != "lock":
        once = kind in POST_TRAINING
        made.nodes["scheduler"] = _at_start(entry, made) if once else _schedule(entry, made, steps)
    if kind.endswith(PROGRESSIVE) and shape.word != "heads":
        _progressive(entry, made)
    _regularizer(entry, shape, made)
    made.keys |= _layers(entry, notes)
    return made


def _at_start(entry: Entry, made: Orders) -> tuple[str, dict[str, Any]]:
    window = ("start_step", "end_step", "pruning_frequency", "sparsity_decay_type")
    made.notes += _dropped(entry, window, "ours prunes once, before the first step; training.epochs trains on after it")
    return "at_start", {}


def _dropped(entry: Entry, keys: Iterable[str], why: str) -> list[str]:
    return [f"dropped: {entry.places[key]}={shown(entry[key])}: {why}" for key in keys if entry.said(key)]


def _check_kind(entry: Entry, shape: Shape) -> None:
    """The pruning types that go with some patterns only."""
    kind = entry["pruning_type"]
    if kind in ("block_mask", "retrain_free") and shape.share is not None:
        raise entry.wrong("pruning_type", f"goes with blocks and channels, not with pattern={shape.name}")
    if kind == "retrain_free" and "channel" not in shape.sides:
        raise entry.wrong("pruning_type", f"goes with channels, such as pattern=channelx1, not with {shape.name}")
    if kind == "pattern_lock" and entry["start_step"] != entry["end_step"]:
        raise entry.wrong("end_step", f"pattern_lock happens once; must be start_step={entry['start_step']}")


def _lock(entry: Entry, notes: list[str]) -> Orders:
    unread = ("target_sparsity", "pattern", "pruning_scope", "min_sparsity_ratio_per_op", "max_sparsity_ratio_per_op")
    notes += _dropped(entry, (*unread, "criterion_reduce_type"), "pattern=lock keeps every zero that is there")
    moment = ("start_step", "end_step", "pruning_frequency", "sparsity_decay_type")
    notes += _dropped(entry, moment, "pattern=lock keeps them from the first step on")
    return Orders("lock", {}, {}, notes)


def _amounts(entry: Entry, shape: Shape, notes: list[str]) -> dict[str, Any]:
    """target_sparsity, and of scope, floor, cap and reduce what is not our default."""
    target, cap = entry["target_sparsity"], entry["max_sparsity_ratio_per_op"]
    bounds = ("min_sparsity_ratio_per_op", "max_sparsity_ratio_per_op")
    if shape.share is not None and target > float(shape.share):
        most = f"{float(shape.share):.4g}"
        why = "" if entry.said("target_sparsity") else f" {target} is their default where nothing is said:"
        raise entry.wrong("target_sparsity", f"{shape.name} removes at most {most} of the weights;{why} say {most}")
    keys: dict[str, Any] = {"target_sparsity": target}
    if shape.word == "heads":
        notes += _dropped(entry, bounds, "whole heads have no bounds per layer")
    else:
        if target > cap:
            keys["target_sparsity"] = cap
            notes.append(f"note: target_sparsity={target} is above the cap; lowered to {cap}, as theirs does silently")
        keys |= {"floor": entry[bounds[0]]} if entry[bounds[0]] else {}
        keys |= {"cap": cap} if cap != 0.98 else {}
        if entry[bounds[0]]:
            notes.append("note: pattern.floor binds here; theirs never lifts a layer")
    keys |= {"scope": "local"} if entry["pruning_scope"] == "local" else {}
    reduce = entry["criterion_reduce_type"]
    return keys | ({"reduce": reduce} if reduce != "mean" else {})


def _criterion(entry: Entry, shape: Shape, notes: list[str]) -> str:
    if shape.word == "heads":
        notes += _dropped(entry, ["pruning_type"], "mha does not read it; criterion_type says it")
        word: str = entry["criterion_type"]
        key = "criterion_type"
    else:
        word, key = entry["pruning_type"].removesuffix(PROGRESSIVE), "pruning_type"
    if word in SCORED_BY_STEPS and entry["end_step"] == 0:
        raise entry.wrong("end_step", f"must be at least 1 with {key}={entry[key]}: before step 0 nothing has a score")
    return word


def _schedule(entry: Entry, made: Orders, steps: int | None) -> tuple[str, dict[str, Any]]:
    start, end = entry["start_step"], entry["end_step"]
    if steps is not None and end > steps:
        raise UserError(f"--steps {steps}: the training must have at least {entry.places['end_step']}={end} steps")
    if start == end:
        unread = ("pruning_frequency", "sparsity_decay_type")
        made.notes += _dropped(entry, unread, "start_step and end_step are one step: a single update")
        return ONE_UPDATE, {"warmup": start, "cooldown": 0}
    if steps is None:
        raise UserError(
            f"--steps: say how many steps the whole training has; {entry.places['end_step']}={end} is counted from its "
            f"beginning, and scheduler.cooldown from its end"
        )
    return entry["sparsity_decay_type"], {
        "warmup": start,
        "cooldown": steps - end,
        "frequency": entry["pruning_frequency"],
    }


def _progressive(entry: Entry, made: Orders) -> None:
    if entry["pruning_frequency"] == 1 or entry["end_step"] - entry["start_step"] <= 4:
        why = f"there {PROGRESSIVE} does nothing at a frequency of 1 or within 4 steps"
        made.notes += _dropped(entry, ["pruning_type"], why)
    else:
        made.nodes["progressive"] = ("scores", {})


def _regularizer(entry: Entry, shape: Shape, made: Orders) -> None:
    inside = "reg_coeff" in entry["parameters"]
    strength = entry["parameters"]["reg_coeff"] if inside else entry["reg_coeff"]
    if entry["reg_type"] is None:
        made.notes += _dropped(entry, ["reg_coeff", "parameters"], "there is no reg_type")
        return
    if not shape.sides or made.pattern == "lock":
        raise entry.wrong("reg_type", f"goes with blocks such as 4x1, not with {entry['pruning_type']} {shape.name}")
    if inside:
        made.notes += _dropped(entry, ["reg_coeff"], "parameters.reg_coeff wins")
    elif entry.said("reg_coeff"):
        made.notes.append(f"note: {entry.places['reg_coeff']} acts here; there only parameters.reg_coeff does")
    made.notes.append("note: regularizer.strength is that of a true proximal step, and not on the scale of reg_coeff")
    made.nodes["regularizer"] = ("group_lasso", {"strength": strength})


def _layers(entry: Entry, notes: list[str]) -> dict[str, Any]:
    names = {"include": entry["op_names"], "exclude": entry["excluded_op_names"]}
    layers = {key: list(value) for key, value in names.items() if value}
    types = [name for name in TYPES if any(name in types_of(word) for word in entry["pruning_op_types"])]
    if types != list(TYPES):
        layers["types"] = types
    if names["exclude"]:
        notes.append("note: an expression of layers.include or .exclude that finds no prunable layer is refused")
    return {"layers": layers} if layers else {}
