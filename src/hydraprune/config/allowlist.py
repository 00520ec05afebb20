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
# A target is judged by the module that defines it, not by the path that names it, since every module is a path to all
# that it imports. Nothing in these modules writes or removes a file, or starts a program.
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
    "hydraprune.models.tiny",
    "hydraprune.data.label_sets",
    "hydraprune.data.language_modelling",
    "hydraprune.data.multiple_choice",
    "hydraprune.data.question_answering",
    "hydraprune.data.tagging",
    "hydraprune.data.tasks",
    "hydraprune.data.toy_tasks",
    "hydraprune.jobs",
    "hydraprune.search.pruner",
    "hydraprune.search.settings",
    "hydraprune.tracking.experiment_trackers",
    "hydraprune.tracking.trackers.Several",
    "hydraprune.tracking.trackers.Silent",
    "hydraprune.tracking.wandb_tracker.WandB",
)
# Only optimizers and schedules: other functions of transformers download, unpickle and run code.
_LIBRARIES = ("torch.optim", "transformers.optimization", "optuna.samplers", "optuna.pruners")
# Prefixes of the targets whose module is imported at all.
_IMPORTED = ("hydraprune", "torch.optim", "transformers", "optuna.samplers", "optuna.pruners")
_REMOTE_CODE = "trust_remote_code"


def allowed_prefixes() -> tuple[str, ...]:
    """The prefixes that the user allows in the environment variable, without trailing dots."""
    words = (word.strip().rstrip(".") for word in os.environ.get(VARIABLE, "").split(","))
    return tuple(word for word in words if word)


def allow_modules(modules: Iterable[object]) -> None:
    """Allow configs of this process and of its workers to name the classes of some modules.

    The modules are also searched for in the current folder.

    Raises:
        UserError: a name is not that of a module.
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
        node: plain values with interpolations resolved; an interpolation as a target is refused.
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
    """The object at a dotted path, found as Hydra does: by attributes, importing submodules; None if there is none."""
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
    """The dotted path of its definition; for other objects than classes and functions, that of its class."""
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
