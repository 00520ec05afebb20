"""The identity of a run: its hash, its cell and its folder, from a config in plain values."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hydraprune.config.renamed_targets import with_earliest_targets
from hydraprune.config.schema import ENGINE_KEYS, OPTIONAL_NODES
from hydraprune.utils.names import snake

# Keys that do not change the result: where and how often files are written, and trackers. `recipe` acts through the
# keys that refer to it, so a typed value and the same value from a recipe make the same run.
NOT_THE_RESULT = (
    "hydra",
    "run",
    "sweep",
    "plan",
    "tracker",
    "modules",
    *OPTIONAL_NODES,
    *ENGINE_KEYS,
    "recipe",
    "cache.dir",
    "runtime.compiled",
    "runtime.sparse_steps",
    "runtime.switch_density",
    "training.checkpoint_every",
    "training.keep_checkpoints",
)


# Running the teacher once or in every step gives the same bits on a CPU, and differs only by rounding on an
# accelerator, where bits are not guaranteed. Hashes use these values, which the first runs had.
_AS_BY_DEFAULT = {"cache.max_gb": 20, "distill.online": False}


@dataclass(frozen=True)
class Identity:
    """Equal configs have equal hashes; `cell` is the hash without the seed.

    Args:
        folder: <task>/<model>/<pattern>/<slug>-<hash>.
    """

    hash: str
    cell: str
    folder: str


def identify(config: Mapping[str, Any], pattern: str, dense: Identity | None = None) -> Identity:
    """The identity of a resolved config (plain dicts and lists).

    Args:
        pattern: the name of the config's pattern.
        dense: of the dense run that this one starts from, unless the user names a model: another dense
            model makes another run, even if no key of this config differs.
    """
    result = with_earliest_targets(_without_absent(_by_default(_without(config, NOT_THE_RESULT))))
    seedless = {key: value for key, value in result.items() if key != "seed"}
    digest = _digest(result if dense is None else {**result, "ancestor": dense.hash})
    cell = _digest(seedless if dense is None else {**seedless, "ancestor": dense.cell})
    place = [_safe(str(config[group]["name"])) for group in ("task", "model")]
    folder = PurePosixPath(*place, _safe(pattern.replace(":", "of")), f"{_slug(config)}-{digest}")
    return Identity(digest, cell, str(folder))


def _without(config: Mapping[str, Any], keys: Iterable[str], above: str = "") -> dict[str, Any]:
    """`config` without some keys, which may be dotted."""
    return {
        key: _without(value, keys, f"{above}{key}.") if isinstance(value, Mapping) else value
        for key, value in config.items()
        if f"{above}{key}" not in keys
    }


def _by_default(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """`config` with the defaults of keys that do not change the result, where it has these keys."""
    return {
        key: _by_default(value, f"{above}{key}.")
        if isinstance(value, Mapping)
        else _AS_BY_DEFAULT.get(f"{above}{key}", value)
        for key, value in config.items()
    }


# Keys that the first runs did not have, with the values that do nothing: then they are not hashed.
_ABSENT: dict[str, set[Any]] = {
    "progressive": {None, "AtOnce"},
    "regularizer": {None, "Unregularized"},
    "initial_sparsity": {None},
    "skip_nonfinite": {0},
    "cuda_graphs": {False},
    "packed": {None},
}


def _without_absent(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_absent(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in _ABSENT
        or _class_or_value(value) not in _ABSENT[key]
        or (isinstance(value, Mapping) and len(value.keys() - {"_target_"}) > 0)
    }


def _class_or_value(value: Any) -> Any:
    """The name of the class of a node, without its module; any other value unchanged."""
    if not isinstance(value, Mapping):
        return value
    target = value.get("_target_")
    return None if target is None else str(target).rsplit(".", 1)[-1]


def _digest(value: Any) -> str:
    text = json.dumps(_plain(value), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    """Equal values in the same form: 2.0 as 2, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _slug(config: Mapping[str, Any]) -> str:
    words = []
    if config.get("phase") != "dense":
        target, pruner = config["pattern"].get("target_sparsity"), _class_or_value(config["pruner"])
        # Without a criterion, the name of the pattern.
        pruner = _class_or_value(config["pattern"]) if pruner == "Unscored" else pruner
        words = [snake(str(pruner)), *([str(target)] if target else [])]
    return _safe("-".join([*words, f"seed{config['seed']}"]))


def _safe(name: str) -> str:
    """A name as one component of a path, on any system."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".")[:100].rstrip(".") or "_"
    return f"_{safe}" if _DEVICES.match(safe) else safe


# Device names of Windows, with any extension.
_DEVICES = re.compile(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)")


def escapes(name: str) -> bool:
    """Whether a name such as `a/b` would leave its folder, or cannot be a path."""
    parts = name.split("/")
    return any(part in ("", ".", "..") or re.search(r'[\x00-\x1f<>:"|?*\\]|[. ]$', part) for part in parts) or any(
        len(part) > 100 or _DEVICES.match(part) for part in parts
    )
