"""Targets that had another module path in an earlier version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Earlier module -> today's. Configs may still use the earlier one, and run hashes are made with it.
_MODULES = {
    "hydraprune.hub.tasks": "hydraprune.data.tasks",
    "hydraprune.hub.models": "hydraprune.models.pretrained",
}
# The same for classes that left their module.
_CLASSES = {
    "hydraprune.hub.models.TinyModel": "hydraprune.models.tiny.TinyModel",
    "hydraprune.models.pretrained.TinyModel": "hydraprune.models.tiny.TinyModel",
}
_EARLIER = {today: earlier for earlier, today in _MODULES.items()}


def with_current_targets(node: Any) -> Any:
    """A copy of plain values in which every `_target_` has today's module path."""
    return _replaced(node, lambda target: _CLASSES.get(target) or _moved(target, _MODULES))


def with_earliest_targets(node: Any) -> Any:
    """A copy of plain values in which every `_target_` has its earliest module path, as hashes need it."""
    earliest = {today: earlier for earlier, today in reversed(_CLASSES.items())}
    return _replaced(node, lambda target: earliest.get(target) or _moved(target, _EARLIER))


def _replaced(node: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(node, Mapping):
        return {
            key: rename(value) if key == "_target_" and isinstance(value, str) else _replaced(value, rename)
            for key, value in node.items()
        }
    if isinstance(node, (list, tuple)):
        return [_replaced(item, rename) for item in node]
    return node


def _moved(target: str, modules: Mapping[str, str]) -> str:
    module, dot, name = target.rpartition(".")
    return f"{modules.get(module, module)}{dot}{name}"
