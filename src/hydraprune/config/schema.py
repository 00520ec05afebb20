"""The schema of a config: known keys and the kinds of their values, and the nearest key to a mistyped one."""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydraprune.config.allowlist import target_of
from hydraprune.config.spellings import our_key
from hydraprune.errors import UserError, typed
from hydraprune.utils.redaction import redacted

_HYDRAS_OWN = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


def nearest(key: str, known: Iterable[str], path: str = "") -> str:
    """`; did you mean x?`, with `path` before x; empty if no known key is near.

    Args:
        key: below `path`.
    """
    known = sorted(known)
    if (ours := our_key(f"{path}{key}")) is not None and ours.removeprefix(path) not in known:
        return f"; did you mean {ours}?"
    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    if not near:
        # The right name under another node: compare the last parts.
        leaf = key.lower().rsplit(".", 1)[-1]
        leaves = {candidate.rsplit(".", 1)[-1]: candidate for candidate in known}
        near = [leaves[match] for match in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)]
    return f"; did you mean {path}{near[0]}?" if near else ""


def unknown_override(error: Exception) -> str | None:
    """The key in a Hydra error about a key that is not there; None for other errors."""
    text = str(error)
    match = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    return match.group(1) if match else None


def override_key(override: str) -> str:
    """`a.b` of `a.b=1`, `+a.b=1` and `a@b=c`."""
    return override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]


def flattened(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """All keys of nested mappings, dotted, with those of inner nodes."""
    keys = []
    for key, value in node.items():
        if key in _HYDRAS_OWN:
            continue
        keys.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            keys += flattened(value, f"{prefix}{key}.")
    return keys


# Nodes of the top level that every config has, each made from its `_target_`.
TARGET_NODES = (
    *("tracker", "training", "optimizer", "lr_scheduler", "distill", "progressive", "regularizer", "scheduler"),
    *("pruner", "model", "task", "pattern"),
)
# The engine of a sweep and the study that makes its jobs, which a config need not have.
OPTIONAL_NODES = ("engine", "study")
# Every other key, with its kind; `Any` where whatever uses the value checks it.
PLAIN: dict[str, Any] = {
    "seed": int,
    "phase": str,
    "sweep": int | str,
    "plan": Any,
    "modules": Sequence[str],
    "runtime.threads": int | None,
    "runtime.compiled": Any,
    "runtime.sparse_steps": Any,
    "runtime.switch_density": float | None,
    "cache.dir": Any,
    "cache.max_gb": Any,
    "run.root": str,
    "dense.source": str,
    "dense.overrides": Sequence[str],
    "recipe.name": str | None,
    "recipe.source": str,
    **dict.fromkeys(
        (
            *("recipe.lr", "recipe.weight_decay", "recipe.betas", "recipe.epochs", "recipe.batch_size"),
            *("recipe.max_length", "recipe.lr_warmup", "recipe.max_grad_norm", "recipe.distill_weight"),
            *("recipe.warmup", "recipe.cooldown", "recipe.frequency"),
        ),
        Any,
    ),
}
# Keys that say how the jobs of a sweep are run, beside the engine; a config need not have them.
ENGINE_KEYS: dict[str, Any] = {
    "at_once": int | None,
    "retries": int,
    "stop_at_first_failure": bool,
    "submit": bool,
    "processes": int,
}
_KINDS = {**PLAIN, **ENGINE_KEYS}
# Keys that only a sparse run needs.
_SPARSE_ONLY = ("dense", "recipe.warmup", "recipe.cooldown", "recipe.frequency")
_GROUPS = {key.partition(".")[0] for key in PLAIN if "." in key}
PHASES = ("sparse", "dense")


def check_keys(config: Mapping[str, Any]) -> None:
    """Refuse keys that nothing reads, and values of the wrong kind.

    A node with a `_target_` may have the arguments of that target, of the kinds that it declares;
    any other node the keys of `PLAIN`.

    Raises:
        UserError: an unknown key, with the nearest known one; a missing node; a value of the wrong
            kind; or a target that may not be named.
    """
    if config.get("phase") not in PHASES:
        raise UserError("leave it out", key="phase", value=_short(config.get("phase")), cure="the pattern chooses it")
    _check_top(config)
    _check_node(config, "", {*PLAIN, *_GROUPS, *TARGET_NODES, *ENGINE_KEYS, *OPTIONAL_NODES})


def _check_top(config: Mapping[str, Any]) -> None:
    """Refuse a config that lacks one of the keys that every config of its phase has, or the class of one."""
    wanted = [key for key in PLAIN if config["phase"] == "sparse" or not key.startswith(_SPARSE_ONLY)]
    groups = {key.partition(".")[0] for key in wanted if "." in key}
    for key in (*TARGET_NODES, *sorted(groups), *(key for key in wanted if "." not in key)):
        if key in groups or key in TARGET_NODES:
            if not isinstance(config.get(key), Mapping):
                raise UserError("must be a group of keys, as in conf/", key=key, value=_short(config.get(key)))
        elif key not in config:
            raise _missing(key)
    for key in TARGET_NODES:
        node = config[key]
        if node.get("_target_") is None:
            raise UserError("must name a class or function", key=f"{key}._target_", value=None)
        # Other arguments may have a default; `name` is needed for folders and tables.
        if key in ("model", "task") and "name" not in node:
            raise _missing(f"{key}.name")
    for key in wanted:
        group, dot, leaf = key.partition(".")
        if dot and leaf not in config[group]:
            raise _missing(key)


def _missing(key: str) -> UserError:
    return UserError("a value is needed here", key=key, cure=f"leave out ~{key}")


def _check_node(node: Mapping[str, Any], path: str, known: set[str]) -> None:
    if node.get("_target_") is not None:
        check_arguments(node, path, known)
        return
    # A node below one that is made from a target, such as pattern.layers, is made from a target too.
    made = "_target_" in node or path.partition(".")[0] in TARGET_NODES
    if made and not _named_by_the_user(path):
        raise UserError("must name a class or function", key=f"{path}_target_", value=None)
    for key, value in node.items():
        full = f"{path}{key}"
        if key in _HYDRAS_OWN:
            continue
        if full not in known and not _named_by_the_user(path):
            raise UserError(f"no such key{nearest(full, known)}", key=full, value=_short(value))
        if (kind := _KINDS.get(full)) is not None and not fits(value, kind):
            raise UserError(f"must be {describe(kind)}", key=full, value=_short(value))
        if isinstance(value, Mapping):
            _check_node(value, f"{full}.", known)


def check_arguments(node: Mapping[str, Any], path: str, known: set[str]) -> None:
    """Check the keys of a node against the arguments of its target. `path` is the node's key and a dot.

    Raises:
        UserError: see `check_keys`.
    """
    target = str(node["_target_"])
    kinds = arguments_of(target, path)
    for key, value in node.items():
        full = f"{path}{key}"
        if key in _HYDRAS_OWN:
            continue
        if value is None and _named_by_the_user(path):
            continue  # inherited
        if key not in kinds:
            raise UserError(f"{target} has no such key{nearest(key, kinds, path)}", key=full, value=_short(value))
        if not fits(value, kinds[key]):
            raise UserError(f"must be {describe(kinds[key])}", key=full, value=_short(value))
        if isinstance(value, Mapping) and not _is_table(kinds[key], value):
            _check_node(value, f"{full}.", known)


def _is_table(kind: Any, value: Mapping[str, Any]) -> bool:
    """Whether a value is a mapping whose keys are the user's own, such as the roles of a model family."""
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    origins = [typing.get_origin(option) for option in (typing.get_args(kind) if is_union else (kind,))]
    is_mapping = any(isinstance(origin, type) and issubclass(origin, Mapping) for origin in origins)
    return is_mapping and not any(isinstance(item, Mapping) for item in value.values())


def _named_by_the_user(path: str) -> bool:
    # The user names the parts of a mixed pattern; what they inherit is checked once it is known.
    return path.endswith(".parts.") or ".parts." in path


def fits(value: Any, kind: Any) -> bool:
    """Whether a value in a config fits the annotation of an argument; an unknown annotation fits everything."""
    if kind is Any:  # a class of its own in some versions of Python
        return True
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if kind in (None, type(None)):
        return value is None
    if origin is typing.Literal:
        return value in inner
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str)
    if origin is tuple and Ellipsis not in inner:
        return isinstance(value, list) and len(value) == len(inner) and all(map(fits, value, inner))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        # A single word counts as a list of one.
        items = [value] if isinstance(value, str) else value
        return isinstance(items, list) and all(fits(item, inner[0]) for item in items)
    if isinstance(kind, type) and kind.__module__.startswith("hydraprune."):
        return isinstance(value, Mapping)  # a node with a target of its own
    return getattr(kind, "__name__", "") != "Tensor"  # a config cannot hold one; anything else may fit


_NODE = "a group of keys"


def describe(kind: Any) -> str:
    """An annotation in words: `a whole number or channel`."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        words = dict.fromkeys(describe(option) for option in inner)
        return " or ".join(word for word in words if word != _NODE or len(words) == 1)
    if kind in (None, type(None)):
        return "null"
    if origin is typing.Literal:
        return " or ".join([", ".join(map(str, inner[:-1])), str(inner[-1])] if len(inner) > 1 else map(str, inner))
    if origin is tuple and Ellipsis not in inner:
        return f"a list of {len(inner)}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each {describe(inner[0])}"
    plain: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return plain.get(kind, _NODE)


def _short(value: Any) -> str:
    text = "{...}" if isinstance(value, Mapping) else typed(value)
    text = str(redacted(text))  # before it is shortened: part of a secret would not be recognized
    return text if len(text) <= 60 else text[:57] + "..."


def arguments_of(target: str, path: str) -> dict[str, Any]:
    """The arguments of a `_target_`, with their annotations.

    Raises:
        UserError: there is no such target, or it is not allowed.
    """
    found = target_of(target, f"{path}_target_")
    parameters = inspect.signature(found).parameters.values()
    try:
        kinds = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found)
    except (NameError, TypeError, AttributeError):  # annotations of other libraries that cannot be resolved
        kinds = {}
    usable = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {name: kinds.get(name, Any) for name in usable}
