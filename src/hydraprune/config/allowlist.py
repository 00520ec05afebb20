"""What may a config call? The objects that `_target_` names, found, and refused where they are nobody's to name."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping
from typing import Any

from hydraprune.errors import UserError

VARIABLE = "HYDRAPRUNE_TARGETS"
# A target is judged by where it is defined, not by the path that leads to it: every module is a path to all that it
# imports. Of ours, what a config describes; nothing in these writes or removes a file, or starts a program.
_OURS = (
    "hydraprune.sparsity.criteria",
    "hydraprune.sparsity.layers",
    "hydraprune.sparsity.methods",
    "hydraprune.sparsity.plans",
    "hydraprune.sparsity.posttraining",
    "hydraprune.sparsity.progressive",
    "hydraprune.sparsity.regularizers",
    "hydraprune.sparsity.schedules",
    "hydraprune.training.distillation",
    "hydraprune.training.learning_rate",
    "hydraprune.training.settings",
    "hydraprune.models.pretrained",
    "hydraprune.data.tasks",
    "hydraprune.tracking.trackers.Several",
    "hydraprune.tracking.trackers.Silent",
    "hydraprune.tracking.wandb_tracker.WandB",
)
# Of transformers its optimizers and learning rates: other functions of it download, unpickle and run what they find.
_LIBRARIES = ("torch.optim", "transformers.optimization")
# What a target has to begin with before its module is imported at all.
_DOORS = ("hydraprune", "torch.optim", "transformers")
_REMOTE_CODE = "trust_remote_code"


def listed() -> tuple[str, ...]:
    """The prefixes that the user lists in the environment, without their last dots."""
    words = (word.strip().rstrip(".") for word in os.environ.get(VARIABLE, "").split(","))
    return tuple(word for word in words if word)


def check_targets(node: Any, path: str) -> None:
    """Refuse a `_target_` that may not be named, anywhere in `node`, and a `trust_remote_code` that is not false.

    Args:
        node: plain values; interpolations resolved, for one that stands for a target is refused.
        path: the node's key, empty for a whole config.

    Raises:
        UserError: naming the key, and where the target comes from.
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            full = f"{path}.{key}" if path else str(key)
            if key == "_target_" and value is not None:
                target_of(value, full)
            if str(key).lower() == _REMOTE_CODE and value is not False:
                raise UserError(f"{full}={value}: must be false; code that comes with a model or data set is never run")
            check_targets(value, full)
    elif isinstance(node, (list, tuple)):
        for value in node:
            check_targets(value, path)


def target_of(target: Any, key: str) -> Any:
    """The class or function that `_target_` names.

    Raises:
        UserError: there is none of this name, or a config may not name it.
    """
    if not isinstance(target, str):
        raise UserError(f"{key}={target}: must be the name of a class or function")
    if not _below(target, (*_DOORS, *listed())):
        raise UserError(_refusal(target, key))
    found = _found(target)
    if not callable(found):
        raise UserError(f"{key}={target}: there is no such class or function")
    home = _home(found)
    ours = (inspect.isclass(found) or inspect.isfunction(found)) and "." not in found.__qualname__
    if _below(home, listed()) or (ours and _below(home, (*_OURS, *_LIBRARIES))):
        return found
    raise UserError(_refusal(target, key, "" if home == target else f"is {home}; "))


def _below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _found(target: str) -> Any:
    """As Hydra finds it: attribute by attribute, a module being imported where there is none; None if nothing is."""
    parts = target.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    try:
        found: Any = importlib.import_module(parts[0])
        for place, part in enumerate(parts[1:], 1):
            if hasattr(found, part) or not inspect.ismodule(found):
                found = getattr(found, part)
            else:
                found = importlib.import_module(".".join(parts[: place + 1]))
    except (ImportError, AttributeError):
        return None
    return found


def _home(found: Any) -> str:
    """Where it is defined; of an object that is neither class nor function, its class."""
    named = found if isinstance(getattr(found, "__qualname__", None), str) else type(found)
    return f"{named.__module__}.{named.__qualname__}"


def _refusal(target: str, key: str, why: str = "") -> str:
    packages = ", ".join(("hydraprune", *_LIBRARIES, *listed()))
    return (
        f"{key}={target}: {why}a config may name the classes that conf/ could, of {packages}; to allow more, list "
        f"their prefixes in the environment variable {VARIABLE}"
    )
