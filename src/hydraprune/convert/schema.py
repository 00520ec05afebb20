"""The keys of a pruner in Neural Compressor 2.x: their types, defaults and checks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hydraprune.config.schema import nearest
from hydraprune.convert.reader import Source
from hydraprune.errors import UserError

# Criteria that need gradients: they have no scores before the first step.
SCORED_BY_STEPS = ("gradient", "snip", "snip_momentum", "block_mask")
CRITERIA = ("magnitude", "gradient", "snip", "snip_momentum")
PROGRESSIVE = "_progressive"
PRUNING_TYPES = (
    *CRITERIA, *(f"{criterion}{PROGRESSIVE}" for criterion in CRITERIA),
    "block_mask", "retrain_free", "sparse_gpt", "pattern_lock",
)  # fmt: skip
TYPES = ("Linear", "Conv1d", "Conv2d", "Conv1D")


@dataclass(frozen=True)
class Kind:
    """The type of a value, in words and as a check."""

    description: str
    fits: Callable[[Any], bool]
    words: tuple[str, ...] = ()


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_of(*words: str) -> Kind:
    return Kind(f"{', '.join(words[:-1])} or {words[-1]}", lambda value: value in words, words)


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


_RATIO = Kind("a number of at least 0 and below 1", lambda value: _number(value) and 0 <= value < 1)
_STEP = Kind("a whole number of steps, at least 0", lambda value: _whole(value) and value >= 0)
_WORDS = Kind("a list of text", _words)
_FLAG = Kind("true or false", lambda value: isinstance(value, bool))
_COEFFICIENT = Kind("a number of at least 0", lambda value: _number(value) and 0 <= value < math.inf)


@dataclass(frozen=True)
class Key:
    """A key: the type of its value, and its default."""

    kind: Kind
    default: Any = None


KEYS: dict[str, Key] = {
    "target_sparsity": Key(_RATIO, 0.9),
    "pruning_type": Key(_one_of(*PRUNING_TYPES), "snip_momentum"),
    "pattern": Key(Kind("text such as 4x1, 2:4, 1xchannel or mha", lambda value: isinstance(value, str)), "4x1"),
    "op_names": Key(_WORDS, []),
    "excluded_op_names": Key(_WORDS, []),
    "start_step": Key(_STEP, 0),
    "end_step": Key(_STEP, 0),
    "pruning_scope": Key(_one_of("global", "local"), "global"),
    "pruning_frequency": Key(Kind("a whole number of steps, at least 1", lambda v: _whole(v) and v >= 1), 1),
    "min_sparsity_ratio_per_op": Key(_RATIO, 0.0),
    "max_sparsity_ratio_per_op": Key(Kind("a number above 0 and below 1", lambda v: _number(v) and 0 < v < 1), 0.98),
    "sparsity_decay_type": Key(_one_of("exp", "linear", "cos", "cube"), "exp"),
    "pruning_op_types": Key(_WORDS, ["Conv", "Linear"]),
    "criterion_type": Key(_one_of(*CRITERIA), "snip_momentum"),
    "criterion_reduce_type": Key(_one_of("mean", "sum", "max"), "mean"),
    "reg_type": Key(Kind("group_lasso or null", lambda value: value == "group_lasso", ("group_lasso",))),
    "reg_coeff": Key(_COEFFICIENT, 0.0),
    "parameters": Key(Kind("a dict that holds reg_coeff", lambda value: isinstance(value, Mapping)), {}),
    "low_memory_usage": Key(_FLAG, False),
    "resume_from_pruned_checkpoint": Key(_FLAG, False),
    "lock_init_sparsity": Key(_FLAG, False),
    "backend": Key(Kind("text", lambda value: isinstance(value, str))),
}
_LISTS = [name for name, key in KEYS.items() if key.kind is _WORDS]
# Names from before 2.0, which some of their own files still use.
RENAMED = {
    "names": "op_names",
    "excluded_names": "excluded_op_names",
    "extra_excluded_names": "excluded_op_names",
    "extra_excluded_op_names": "excluded_op_names",
    "prune_type": "pruning_type",
    "prune_domain": "pruning_scope",
    "prune_layer_type": "pruning_op_types",
    "prune_frequency": "pruning_frequency",
    "update_frequency_on_step": "pruning_frequency",
    "max_sparsity_ratio_per_layer": "max_sparsity_ratio_per_op",
    "max_layer_sparsity_ratio": "max_sparsity_ratio_per_op",
}


@dataclass(frozen=True)
class Entry:
    """One pruner of a Neural Compressor configuration.

    Args:
        values: key -> its value or default.
        places: key -> where the file gives it, for errors; only keys that it gives.
    """

    values: Mapping[str, Any]
    places: Mapping[str, str]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def has(self, key: str) -> bool:
        """Whether the file gives the key."""
        return key in self.places

    def error(self, key: str, reason: str, cure: str | None = None) -> UserError:
        """The error of an invalid value."""
        return UserError(reason, key=self.places.get(key, key), value=self[key], cure=cure)


def entries_of(source: Source) -> list[Entry]:
    """One entry per pruner, with its own values, else the shared ones, else the defaults; null inherits.

    Raises:
        UserError: an unknown key, or a value of the wrong type or out of range.
    """
    common = _checked(source.common, "")
    entries = []
    for index, item in enumerate(source.own):
        where = f"{source.list_name}[{index}]."
        own = _checked(item, where)
        values = {name: own.get(name, common.get(name, key.default)) for name, key in KEYS.items()}
        places = {name: name for name in common} | {name: f"{where}{name}" for name in own}
        entry = Entry(values, places)
        _check_together(entry)
        entries.append(entry)
    return entries


def _checked(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys with a value, each checked."""
    values = {}
    for name, value in given.items():
        if name not in KEYS:
            if name in RENAMED:
                reason = f"in Neural Compressor 2.x this key is {RENAMED[name]}"
                raise UserError(reason, key=f"{where}{name}", value=value)
            raise UserError(f"no such key{nearest(name, KEYS, where)}", key=f"{where}{name}", value=value)
        if value is None:
            continue
        if name in _LISTS:
            # A single string is a list of one; Neural Compressor would read its letters as a list.
            value = [value] if isinstance(value, str) else list(value) if isinstance(value, tuple) else value
        kind = KEYS[name].kind
        if not kind.fits(value):
            near = nearest(value, kind.words) if isinstance(value, str) and kind.words else ""
            raise UserError(f"must be {kind.description}{near}", key=f"{where}{name}", value=value)
        values[name] = value
    for name in ("op_names", "excluded_op_names"):
        for expression in values.get(name, []):
            try:
                re.compile(expression)
            except re.error as error:
                raise UserError(f"not a regular expression ({error})", key=f"{where}{name}", value=expression) from None
    _check_parameters(values.get("parameters", {}), f"{where}parameters.")
    return values


def _check_parameters(parameters: Mapping[str, Any], where: str) -> None:
    for name, value in parameters.items():
        if name != "reg_coeff":
            cure = f"did you mean {where}reg_coeff?"
            raise UserError("no such key", key=f"{where}{name}", value=value, cure=cure)
        if not _COEFFICIENT.fits(value):
            raise UserError(f"must be {_COEFFICIENT.description}", key=f"{where}{name}", value=value)


def _check_together(entry: Entry) -> None:
    """Refuse values that exclude each other, as Neural Compressor does."""
    start, end = entry["start_step"], entry["end_step"]
    if end < start:
        raise entry.error("end_step", f"must be at least start_step={start}")
    if entry["min_sparsity_ratio_per_op"] > (most := entry["max_sparsity_ratio_per_op"]):
        raise entry.error("min_sparsity_ratio_per_op", f"must be at most max_sparsity_ratio_per_op={most}")
    for word in entry["pruning_op_types"]:
        if not types_of(word):
            cure = f"must be Conv, {', '.join(TYPES[:-1])} or {TYPES[-1]}"
            raise UserError("no such layer can be pruned", key=entry.places["pruning_op_types"], value=word, cure=cure)


def types_of(word: str) -> list[str]:
    """Module types whose name contains `word`, which is how Neural Compressor chooses: `Conv` is all convolutions."""
    return [name for name in TYPES if word and word in name]
