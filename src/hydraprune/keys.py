"""Is every key one that we know? Mistyped keys, and the nearest right ones."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hydraprune.errors import UserError

ALLOWED = ("hydraprune.", "torch.optim.", "transformers.")
ALLOWED_VARIABLE = "HYDRAPRUNE_TARGETS"
_HYDRAS_OWN = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


def nearest(key: str, known: Iterable[str]) -> str:
    """` (nearest: x)`, or nothing when nothing is near."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        # A right name under a wrong node: compare last parts.
        leaf = key.rsplit(".", 1)[-1]
        leaves = {candidate.rsplit(".", 1)[-1]: candidate for candidate in known}
        near = [leaves[match] for match in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)]
    return f"; did you mean {near[0]}?" if near else ""


def unknown_override(error: Exception) -> str | None:
    """The key that Hydra says is not there, if that is what it says."""
    text = str(error)
    match = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    return match.group(1) if match else None


def override_key(override: str) -> str:
    """`a.b` of `a.b=1`, `+a.b=1` and `a@b=c`."""
    return override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]


def flattened(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every key of nested mappings, with dots; those of inner nodes too."""
    keys = []
    for key, value in node.items():
        if key in _HYDRAS_OWN:
            continue
        keys.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            keys += flattened(value, f"{prefix}{key}.")
    return keys


def check_keys(config: Mapping[str, Any], references: Iterable[Mapping[str, Any]]) -> None:
    """Refuse keys that nothing reads.

    A node with a `_target_` may have the arguments of that target; any other node the keys that
    one of the `references` (default compositions) has at the same place.

    Raises:
        UserError: an unknown key, with the nearest known one; or a target that may not be named.
    """
    known = set()
    for reference in references:
        known |= set(flattened(reference))
    everything = sorted(known | set(flattened(config)))
    _check_node(config, "", known, everything)


def _check_node(node: Mapping[str, Any], path: str, known: set[str], everything: list[str]) -> None:
    target = node.get("_target_")
    arguments = None
    if target is not None:
        arguments = _arguments(str(target), path)
    for key, value in node.items():
        if key in _HYDRAS_OWN:
            continue
        full = f"{path}{key}"
        if arguments is not None:
            if "**" not in arguments and key not in arguments:
                candidates = [f"{path}{name}" for name in arguments]
                raise UserError(f"{full}={_short(value)}: {target} has no such key{nearest(full, candidates)}")
        elif full not in known and not _under_mapping_argument(path, known):
            raise UserError(f"{full}={_short(value)}: no such key{nearest(full, set(everything) - {full})}")
        if isinstance(value, Mapping):
            _check_node(value, f"{full}.", known, everything)


def _under_mapping_argument(path: str, known: set[str]) -> bool:
    # The parts of a mixed pattern are named by the user; each part's own keys are checked by its target.
    return path.endswith(".parts.") or ".parts." in path


def _short(value: Any) -> str:
    text = "{...}" if isinstance(value, Mapping) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def allowed_prefixes() -> tuple[str, ...]:
    """What a `_target_` may begin with: ours, torch.optim, transformers, and what the user lists."""
    extra = os.environ.get(ALLOWED_VARIABLE, "").split(",")
    return (*ALLOWED, *(prefix.strip() for prefix in extra if prefix.strip()))


def _arguments(target: str, path: str) -> list[str]:
    key = f"{path}_target_"
    if not target.startswith(allowed_prefixes()):
        raise UserError(
            f"{key}={target}: a config may name classes of {', '.join(p.rstrip('.') for p in allowed_prefixes())}; "
            f"to allow more, list their prefixes in the environment variable {ALLOWED_VARIABLE}"
        )
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise UserError(f"{key}={target}: there is no such class or function") from None
    parameters = inspect.signature(found).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [*names, "**"] if any(p.kind is p.VAR_KEYWORD for p in parameters) else names
