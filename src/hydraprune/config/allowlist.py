"""The classes and functions that a `_target_` may name."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from hydraprune.errors import UserError

VARIABLE = "HYDRAPRUNE_TARGETS"
# A target is judged by where it is defined, not by the path that leads to it: every module is a path to all that it
# imports. Of hydraprune, what a config describes; nothing in these writes or removes a file, or starts a program.
_OWN = (
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
    "hydraprune.models.families",
    "hydraprune.models.pretrained",
    "hydraprune.data.tasks",
    "hydraprune.tracking.trackers.Several",
    "hydraprune.tracking.trackers.Silent",
    "hydraprune.tracking.wandb_tracker.WandB",
)
# Of transformers its optimizers and learning rates: other functions of it download, unpickle and run what they find.
_LIBRARIES = ("torch.optim", "transformers.optimization")
# What a target has to begin with before its module is imported at all.
_IMPORTED = ("hydraprune", "torch.optim", "transformers")
_REMOTE_CODE = "trust_remote_code"


def allowed_prefixes() -> tuple[str, ...]:
    """What the user allows besides: the prefixes in the environment variable, without their last dots."""
    words = (word.strip().rstrip(".") for word in os.environ.get(VARIABLE, "").split(","))
    return tuple(word for word in words if word)


def allow_modules(modules: Iterable[object]) -> None:
    """Let the configs of this process, and of its worker processes, name the classes of some modules.

    They are looked for in the current folder too.

    Raises:
        UserError: a module's name is not one.
    """
    for module in modules:
        if not isinstance(module, str) or not all(part.isidentifier() for part in module.split(".")):
            raise UserError("must be names of modules", key="modules", value=module, cure="as in modules=[my_module]")
        if module not in allowed_prefixes():
            os.environ[VARIABLE] = ",".join([*allowed_prefixes(), module])
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())


def import_modules(modules: Iterable[str]) -> None:
    """Import modules of the user's own, so that the classes that they define are known.

    Raises:
        UserError: one of them cannot be imported.
    """
    modules = list(modules)
    allow_modules(modules)
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"cannot be imported ({error})", key="modules", value=module) from None


def check_targets(node: Any, path: str) -> None:
    """Refuse a `_target_` that may not be named, anywhere in `node`, and a `trust_remote_code` that is not false.

    Args:
        node: plain values; interpolations resolved, for one that stands for a target is refused.
        path: the node's key, empty for a whole config.

    Raises:
        UserError: naming the key, and where the target is defined.
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            full = f"{path}.{key}" if path else str(key)
            if key == "_target_" and value is not None:
                target_of(value, full)
            if str(key).lower() == _REMOTE_CODE and value is not False:
                raise UserError(
                    "must be false", key=full, value=value, cure="code that comes with a model or data set is never run"
                )
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
        raise UserError("must be the name of a class or function", key=key, value=target)
    if not _below(target, (*_IMPORTED, *allowed_prefixes())):
        raise _refusal(target, key)
    found = _found(target)
    if not callable(found):
        raise UserError("there is no such class or function", key=key, value=target)
    home = _home(found)
    plain = (inspect.isclass(found) or inspect.isfunction(found)) and "." not in found.__qualname__
    if _below(home, allowed_prefixes()) or (plain and _below(home, (*_OWN, *_LIBRARIES))):
        return found
    raise _refusal(target, key, "" if home == target else f"is {home}; ")


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


def _refusal(target: str, key: str, why: str = "") -> UserError:
    packages = ", ".join(("hydraprune", *_LIBRARIES, *allowed_prefixes()))
    return UserError(
        f"{why}a config may name the classes that conf/ could, of {packages}",
        key=key,
        value=target,
        cure=f"for classes of your own type modules=[my_module], or list it in the environment variable {VARIABLE}",
    )
