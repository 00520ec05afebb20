"""Which keys does a pruner of Neural Compressor 2.x have, and what may they be?"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hydraprune.config.schema import nearest
from hydraprune.convert.reader import Source
from hydraprune.errors import UserError

# Criteria that score by gradients: without a step before the update there is no score.
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
    """What a value must be, in words and as a check."""

    right: str
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
    """One key of theirs: what it may be, and its value where nothing is said."""

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
# Names of before 2.0, some of which their own older files still have.
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
    """One pruner of theirs.

    Args:
        values: key -> the value in force, the defaults included.
        places: key -> where it was said, for messages; only keys that were said.
    """

    values: Mapping[str, Any]
    places: Mapping[str, str]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def said(self, key: str) -> bool:
        """Whether the file gives the key."""
        return key in self.places

    def wrong(self, key: str, right: str) -> UserError:
        """The error of a value that cannot be, in one line."""
        return UserError(f"{self.places.get(key, key)}={shown(self[key])}: {right}")


def shown(value: Any) -> str:
    """A value as a person would type it."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def entries_of(source: Source) -> list[Entry]:
    """One entry per pruner: a dict's own value, else the shared one, else the default. null inherits.

    Raises:
        UserError: an unknown key, or a value that is of the wrong kind or cannot be.
    """
    common = _checked(source.common, "")
    entries = []
    for index, item in enumerate(source.own):
        where = f"{source.called}[{index}]."
        own = _checked(item, where)
        values = {name: own.get(name, common.get(name, key.default)) for name, key in KEYS.items()}
        places = {name: name for name in common} | {name: f"{where}{name}" for name in own}
        entry = Entry(values, places)
        _check_together(entry)
        entries.append(entry)
    return entries


def _checked(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys that say something, each held against its kind."""
    values = {}
    for name, value in given.items():
        if name not in KEYS:
            if name in RENAMED:
                raise UserError(f"{where}{name}={value}: in Neural Compressor 2.x this key is {RENAMED[name]}")
            raise UserError(f"{where}{name}={value}: no such key{nearest(name, KEYS, where)}")
        if value is None:
            continue
        if name in _LISTS:
            # A lone word is a list of one; letter by letter, as there, is never meant.
            value = [value] if isinstance(value, str) else list(value) if isinstance(value, tuple) else value
        kind = KEYS[name].kind
        if not kind.fits(value):
            near = nearest(value, kind.words) if isinstance(value, str) and kind.words else ""
            raise UserError(f"{where}{name}={shown(value)}: must be {kind.right}{near}")
        values[name] = value
    for name in ("op_names", "excluded_op_names"):
        for expression in values.get(name, []):
            try:
                re.compile(expression)
            except re.error as error:
                raise UserError(f"{where}{name}={expression}: not a regular expression ({error})") from None
    _check_parameters(values.get("parameters", {}), f"{where}parameters.")
    return values


def _check_parameters(parameters: Mapping[str, Any], where: str) -> None:
    for name, value in parameters.items():
        if name != "reg_coeff":
            raise UserError(f"{where}{name}={value}: no such key; did you mean {where}reg_coeff?")
        if not _COEFFICIENT.fits(value):
            raise UserError(f"{where}{name}={value}: must be {_COEFFICIENT.right}")


def _check_together(entry: Entry) -> None:
    """What two keys cannot be at once, as there."""
    start, end = entry["start_step"], entry["end_step"]
    if end < start:
        raise entry.wrong("end_step", f"must be at least start_step={start}")
    if entry["min_sparsity_ratio_per_op"] > (most := entry["max_sparsity_ratio_per_op"]):
        raise entry.wrong("min_sparsity_ratio_per_op", f"must be at most max_sparsity_ratio_per_op={most}")
    for word in entry["pruning_op_types"]:
        if not types_of(word):
            raise UserError(
                f"{entry.places['pruning_op_types']}={word}: no such layer can be pruned; must be Conv, "
                f"{', '.join(TYPES[:-1])} or {TYPES[-1]}"
            )


def types_of(word: str) -> list[str]:
    """Module types whose name holds `word`, which is how they choose: `Conv` is all convolutions."""
    return [name for name in TYPES if word and word in name]
