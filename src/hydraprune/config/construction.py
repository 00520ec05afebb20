"""Construction of objects from plain values: what `hydra.utils.instantiate` does, without a second resolution.

Hydra makes a config of the values it is given and resolves it again. A text that still holds `${...}` after the first
resolution, such as an escaped one, would come to life there, and could become a node with a `_target_` that nobody has
looked at. Here a text is a text, and the target that is called is the object that the allow-list judged.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from hydraprune.config.allowlist import target_of
from hydraprune.errors import UserError, single_line
from hydraprune.sparsity import SparsityError

_TARGET, _ARGS, _PARTIAL, _RECURSIVE = "_target_", "_args_", "_partial_", "_recursive_"
# `_convert_` chooses between kinds of containers in Hydra; here all of them are dicts and lists.
_SPECIAL = {_TARGET, _ARGS, _PARTIAL, _RECURSIVE, "_convert_"}


def construct(node: Any, key: str, **arguments: Any) -> Any:
    """The object that a node describes, with the nodes inside it made first.

    `_target_`, `_args_`, `_partial_` and `_recursive_` mean what they mean to Hydra.

    Args:
        node: plain values. Interpolations in them are not resolved.
        key: the node's key, for errors.
        arguments: further arguments of its target, in place of those of the same name.

    Raises:
        UserError: a target that may not be named, or what a target raises about its arguments, under its key.
    """
    return _made({**node, **arguments} if isinstance(node, Mapping) else node, key, recursive=True)


def _made(value: Any, key: str, recursive: bool) -> Any:
    if isinstance(value, (list, tuple)):
        return [_made(item, f"{key}[{index}]", recursive) for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    recursive = _switch(value, _RECURSIVE, recursive, key)
    if _TARGET not in value:
        return {name: _made(item, f"{key}.{name}", recursive) for name, item in value.items()}
    partial = _switch(value, _PARTIAL, False, key)
    target = target_of(value[_TARGET], f"{key}.{_TARGET}")
    positional = value.get(_ARGS) or []
    if not isinstance(positional, (list, tuple)):
        raise UserError("must be a list", key=f"{key}.{_ARGS}", value=positional)
    named = {str(name): item for name, item in value.items() if name not in _SPECIAL}
    if recursive:
        positional = _made(positional, f"{key}.{_ARGS}", recursive)
        named = {name: _made(item, f"{key}.{name}", recursive) for name, item in named.items()}
    return functools.partial(target, *positional, **named) if partial else _called(target, positional, named, key)


def _switch(node: Mapping[str, Any], name: str, default: bool, key: str) -> bool:
    given = node.get(name, default)
    if not isinstance(given, bool):
        raise UserError("must be true or false", key=f"{key}.{name}", value=given)
    return given


def _called(target: Any, positional: Any, named: Mapping[str, Any], key: str) -> Any:
    try:
        return target(*positional, **named)
    except (UserError, ValueError, TypeError) as error:
        raise target_error(error, key) from None
    except Exception as error:  # a class of the user's own may raise anything
        raise UserError(f"cannot be made ({type(error).__name__}: {single_line(error)})", key=key) from error


def target_error(error: Exception, key: str) -> UserError:
    """The error that the target of the node at `key` raised, under that key or one below it."""
    if isinstance(error, SparsityError):
        return UserError.of(error, key)
    if isinstance(error, UserError):
        # Without a key, or with the whole key, there is nothing to add.
        return error if error.key is None or error.key.startswith(f"{key}.") else error.under(key)
    return UserError(single_line(error), key=key)
