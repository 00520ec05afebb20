"""Translates one pruner of Neural Compressor to our config: pattern, criterion, schedule, regularizer, layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hydraprune.convert.patterns import Shape, shape_of
from hydraprune.convert.schema import PROGRESSIVE, SCORED_BY_STEPS, TYPES, Entry, types_of
from hydraprune.errors import UserError, typed

ONE_UPDATE = "oneshot"
# Keys without a counterpart, and why.
_NO_COUNTERPART = {
    "low_memory_usage": "no counterpart; scores are kept in 32 bits",
    "resume_from_pruned_checkpoint": "zeros that exist at the start are measured anyway",
    "lock_init_sparsity": "zeros that exist at the start are measured anyway",
    "backend": "no counterpart; there is only one",
}
_ONLY_MHA = "only mha uses it; pruning_type is used instead"
# Pruning types without training -> our classes, for the parts of a mixed pattern.
POST_TRAINING = {"retrain_free": "RetrainFree", "sparse_gpt": "SparseGpt"}


@dataclass
class Translation:
    """One pruner in our config.

    Args:
        pattern: the value of `pattern=`, with `keys` below it.
        nodes: group -> (value, keys), for pruner, scheduler, progressive and regularizer; only those that are set.
        notes: what was dropped or changes its meaning.
    """

    pattern: str
    keys: dict[str, Any]
    nodes: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def translate(entry: Entry, steps: int | None) -> Translation:
    """One entry in our config.

    Args:
        steps: of the whole training; needed unless the entry has a single update.

    Raises:
        UserError: values that exclude each other, or no `steps` although they are needed.
    """
    shape = shape_of(entry)
    kind = entry["pruning_type"]
    notes = [note for key, why in _NO_COUNTERPART.items() for note in _dropped(entry, [key], why)]
    if shape.word != "heads":
        _check_kind(entry, shape)
        notes += _dropped(entry, ["criterion_type"], _ONLY_MHA)
    if kind == "pattern_lock" and shape.word != "heads":
        made = _lock(entry, notes)
    else:
        made = Translation(shape.word, {**shape.keys, **_amounts(entry, shape, notes)}, {}, notes)
        made.nodes["pruner"] = (_criterion(entry, shape, notes), {})
    if made.pattern != "lock":
        once = kind in POST_TRAINING
        made.nodes["scheduler"] = _at_start(entry, made) if once else _schedule(entry, made, steps)
    if kind.endswith(PROGRESSIVE) and shape.word != "heads":
        _progressive(entry, made)
    _regularizer(entry, shape, made)
    made.keys |= _layers(entry, notes)
    return made


def _at_start(entry: Entry, made: Translation) -> tuple[str, dict[str, Any]]:
    window = ("start_step", "end_step", "pruning_frequency", "sparsity_decay_type")
    made.notes += _dropped(
        entry, window, "we prune once, before the first step; training.epochs sets the training after it"
    )
    return "at_start", {}


def _dropped(entry: Entry, keys: Iterable[str], why: str) -> list[str]:
    return [f"dropped: {entry.places[key]}={typed(entry[key])}: {why}" for key in keys if entry.has(key)]


def _check_kind(entry: Entry, shape: Shape) -> None:
    """Refuse pruning types that do not support the pattern."""
    kind = entry["pruning_type"]
    if kind in ("block_mask", "retrain_free") and shape.share is not None:
        raise entry.error("pruning_type", f"goes with blocks and channels, not with pattern={shape.name}")
    if kind == "retrain_free" and "channel" not in shape.sides:
        raise entry.error("pruning_type", f"goes with channels, such as pattern=channelx1, not with {shape.name}")
    if kind == "pattern_lock" and entry["start_step"] != entry["end_step"]:
        raise entry.error("end_step", f"pattern_lock happens once; must be start_step={entry['start_step']}")


def _lock(entry: Entry, notes: list[str]) -> Translation:
    unused = ("target_sparsity", "pattern", "pruning_scope", "min_sparsity_ratio_per_op", "max_sparsity_ratio_per_op")
    notes += _dropped(entry, (*unused, "criterion_reduce_type"), "pattern=lock keeps every existing zero")
    moment = ("start_step", "end_step", "pruning_frequency", "sparsity_decay_type")
    notes += _dropped(entry, moment, "pattern=lock keeps them from the first step on")
    return Translation("lock", {}, {}, notes)


def _amounts(entry: Entry, shape: Shape, notes: list[str]) -> dict[str, Any]:
    """target_sparsity, and scope, floor, cap and reduce if they are not our defaults."""
    target, cap = entry["target_sparsity"], entry["max_sparsity_ratio_per_op"]
    bounds = ("min_sparsity_ratio_per_op", "max_sparsity_ratio_per_op")
    if shape.share is not None and target > float(shape.share):
        most = f"{float(shape.share):.4g}"
        reason = f"{shape.name} removes at most {most} of the weights"
        reason += "" if entry.has("target_sparsity") else f", and {target} is their default"
        raise entry.error("target_sparsity", reason, cure=f"set it to {most}")
    keys: dict[str, Any] = {"target_sparsity": target}
    if shape.word == "heads":
        notes += _dropped(entry, bounds, "whole heads have no bounds per layer")
    else:
        if target > cap:
            keys["target_sparsity"] = cap
            notes.append(f"note: target_sparsity={target} is above the cap; lowered to {cap}, as theirs is silently")
        keys |= {"floor": entry[bounds[0]]} if entry[bounds[0]] else {}
        keys |= {"cap": cap} if cap != 0.98 else {}
        if entry[bounds[0]]:
            notes.append("note: pattern.floor is a strict minimum here; theirs never raises the sparsity of a layer")
    keys |= {"scope": "local"} if entry["pruning_scope"] == "local" else {}
    reduce = entry["criterion_reduce_type"]
    return keys | ({"reduce": reduce} if reduce != "mean" else {})


def _criterion(entry: Entry, shape: Shape, notes: list[str]) -> str:
    if shape.word == "heads":
        notes += _dropped(entry, ["pruning_type"], "mha does not use it; criterion_type is used instead")
        word: str = entry["criterion_type"]
        key = "criterion_type"
    else:
        word, key = entry["pruning_type"].removesuffix(PROGRESSIVE), "pruning_type"
    if word in SCORED_BY_STEPS and entry["end_step"] == 0:
        raise entry.error(
            "end_step", f"must be at least 1 with {key}={entry[key]}: there are no scores before the first step"
        )
    return word


def _schedule(entry: Entry, made: Translation, steps: int | None) -> tuple[str, dict[str, Any]]:
    start, end = entry["start_step"], entry["end_step"]
    if steps is not None and end > steps:
        reason = f"the training must have at least {entry.places['end_step']}={end} steps"
        raise UserError(reason, key=f"--steps {steps}")
    if start == end:
        unused = ("pruning_frequency", "sparsity_decay_type")
        made.notes += _dropped(entry, unused, "start_step and end_step are one step: a single update")
        return ONE_UPDATE, {"warmup": start, "cooldown": 0}
    if steps is None:
        reason = f"needed, since {entry.places['end_step']}={end} is counted from the start of the training and "
        reason += "scheduler.cooldown from its end"
        raise UserError(reason, key="--steps", cure="give the number of steps of the whole training")
    return entry["sparsity_decay_type"], {
        "warmup": start,
        "cooldown": steps - end,
        "frequency": entry["pruning_frequency"],
    }


def _progressive(entry: Entry, made: Translation) -> None:
    if entry["pruning_frequency"] == 1 or entry["end_step"] - entry["start_step"] <= 4:
        why = f"in Neural Compressor {PROGRESSIVE} does nothing at a frequency of 1 or within 4 steps"
        made.notes += _dropped(entry, ["pruning_type"], why)
    else:
        made.nodes["progressive"] = ("scores", {})


def _regularizer(entry: Entry, shape: Shape, made: Translation) -> None:
    inside = "reg_coeff" in entry["parameters"]
    strength = entry["parameters"]["reg_coeff"] if inside else entry["reg_coeff"]
    if entry["reg_type"] is None:
        made.notes += _dropped(entry, ["reg_coeff", "parameters"], "there is no reg_type")
        return
    if not shape.sides or made.pattern == "lock":
        raise entry.error("reg_type", f"goes with blocks such as 4x1, not with {entry['pruning_type']} {shape.name}")
    if inside:
        made.notes += _dropped(entry, ["reg_coeff"], "parameters.reg_coeff takes precedence")
    elif entry.has("reg_coeff"):
        made.notes.append(
            f"note: {entry.places['reg_coeff']} is used here; Neural Compressor uses only parameters.reg_coeff"
        )
    made.notes.append("note: regularizer.strength is that of a true proximal step, not on the scale of reg_coeff")
    made.nodes["regularizer"] = ("group_lasso", {"strength": strength})


def _layers(entry: Entry, notes: list[str]) -> dict[str, Any]:
    names = {"include": entry["op_names"], "exclude": entry["excluded_op_names"]}
    layers = {key: list(value) for key, value in names.items() if value}
    types = [name for name in TYPES if any(name in types_of(word) for word in entry["pruning_op_types"])]
    if types != list(TYPES):
        layers["types"] = types
    if names["exclude"]:
        notes.append("note: an expression in layers.include or .exclude that matches no prunable layer is refused")
    return {"layers": layers} if layers else {}
