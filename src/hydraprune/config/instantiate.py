"""Config -> objects. The only place that instantiates, and the last that sees a config."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf
from torch import nn

from hydraprune.config.allowlist import check_targets, target_of
from hydraprune.config.schema import arguments_of, check_arguments
from hydraprune.errors import UserError
from hydraprune.models.families import ModelFamily, family_of_model, model_type
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.sparsity import Calibration, Never, Plans, Pruner, SparsityError, Unscored, attach
from hydraprune.training.distillation import Distiller
from hydraprune.training.settings import Settings

_GROUP_KEYS = {"scheduler": ("warmup", "cooldown", "frequency"), "progressive": ("parts", "order")}
# Nodes that all parts of a pattern share, in the order in which a plan takes them.
_SHARED = ("pruner", "scheduler", "progressive", "regularizer")
_LAYER_KEYS = ("roles", "include", "exclude", "types")


class Components:
    """The objects that a config describes, each made once, when it is first needed. No model or data is loaded.

    Args:
        config: resolved, plain values.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    @cached_property
    def plans(self) -> Plans:
        """What its pruners do."""
        return plans(self._config)

    @cached_property
    def settings(self) -> Settings:
        """How it trains."""
        made: Settings = make(self._config, "training")
        return made

    @cached_property
    def distiller(self) -> Distiller:
        """How it learns from a teacher."""
        made: Distiller = make(self._config, "distill")
        return made

    @cached_property
    def model(self) -> Any:
        """The pretrained model's source."""
        return make(self._config, "model")

    @cached_property
    def task(self) -> Any:
        """The task's source."""
        return make(self._config, "task", _with_metric_functions(self._config["task"]))


def make(config: Mapping[str, Any], key: str, node: Any = None, **arguments: Any) -> Any:
    """Instantiate the node at `key` of a resolved config (or `node` in its place).

    Raises:
        UserError: what the target says of its arguments, with the key before it.
    """
    node = config[key] if node is None else node
    # Plain values, so that a target inside a list is found too.
    node = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    check_targets(node, key)
    try:
        return hydra.utils.instantiate(node, **arguments, _convert_="all")
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        where = re.search(r"full_key: (\S+)", str(error))
        at = where.group(1) if where else key
        at = at if at.split(".")[0] == key else f"{key}.{at}"
        if isinstance(cause, (ValueError, TypeError)):
            raise UserError(in_place(at, cause)) from None
        raise


def _with_metric_functions(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A task's node in which the dotted names among its metrics are the functions that they name.

    Raises:
        UserError: there is no such function, or a config may not name it.
    """
    names = node.get("metrics")
    if not isinstance(names, list) or not any("." in str(name) for name in names):
        return node
    metrics = [target_of(name, "task.metrics") if "." in str(name) else name for name in names]
    return {**node, "metrics": metrics}


def in_place(key: str, error: Exception) -> str:
    """What a target says of its argument `x=...`, said of the key `key.x`."""
    message = " ".join(str(error).split())
    return f"{key}.{message}" if re.match(r"\w+=", message) else f"{key}: {message}"


def plans(config: Mapping[str, Any]) -> Plans:
    """The plans of a resolved config, each with a criterion and a schedule.

    A part's own keys win; where it is silent (null) the nodes of these names at the top speak.
    """
    node = copy.deepcopy(config["pattern"])
    shared = {key: config[key] for key in _SHARED}
    for name, part in (node.get("parts") or {}).items():
        if not re.fullmatch(r"\w[\w.:+-]{0,63}", str(name)):
            raise UserError(f"pattern.parts.{str(name)[:80]!r}: a part is named by letters, digits and any of _.:+-")
        if not isinstance(part, dict):
            raise UserError(f"pattern.parts.{name}={part}: must be a pattern; ~pattern.parts.{name} leaves it out")
        if part.get("_target_") is None:
            raise UserError(f"pattern.parts.{name}._target_=null: must name a pattern's function, as in conf/pattern/")
        for key, other in shared.items():
            own = {k: value for k, value in (part.pop(key, None) or {}).items() if value is not None}
            if own:
                where = f"pattern.parts.{name}.{key}."
                taken = arguments_of(str(own.get("_target_", other["_target_"])), where)
                part[key] = {k: v for k, v in other.items() if k in taken or k == "_target_"} | own
                check_arguments(part[key], where, set())
    _refuse_lost_layers({"pattern": node, **{f"pattern.parts.{k}": v for k, v in (node.get("parts") or {}).items()}})
    made: Plans = make(config, "pattern", node)
    common = [make(config, key) for key in _SHARED]
    if made.name == "lock":
        _refuse_unread(common)
    if (config["phase"] == "dense") != (not made.parts):
        raise UserError(
            f"phase={config['phase']}: does not go with pattern={made.name}; type pattern=dense to fine-tune without "
            f"pruning, which chooses the phase itself, and any other pattern to prune"
        )
    try:
        return Plans(made.name, {name: plan.completed(*common) for name, plan in made.parts.items()})
    except SparsityError as error:
        raise UserError(str(error)) from None


def pattern_name(config: Mapping[str, Any]) -> str:
    """What the pattern of a resolved config is called; the plans that a run needs are not made.

    Raises:
        UserError: the pattern cannot be made.
    """
    node = copy.deepcopy(config["pattern"])
    for part in (node.get("parts") or {}).values():
        for key in _SHARED if isinstance(part, dict) else ():
            part.pop(key, None)  # no part of the name, and what it does not say comes from the nodes at the top
    made: Plans = make(config, "pattern", node)
    return made.name


def _refuse_lost_layers(nodes: Mapping[str, Any]) -> None:
    for key, node in nodes.items():
        layers = node.get("layers")
        if isinstance(layers, dict) and layers.get("_target_") is None:
            raise UserError(f"{key}.layers._target_=null: must name hydraprune.sparsity.Layers")


def _refuse_unread(common: list[Any]) -> None:
    """A lock alone takes neither a criterion nor a schedule."""
    for key, value, absence in zip(_SHARED[:2], common, (Unscored, Never), strict=False):
        if not isinstance(value, absence):
            raise UserError(f"pattern=lock: scores nothing and prunes nothing; leave {key} out, or say {key}=none")


def pretrained(path: str, key: str, family: ModelFamily | None = None) -> PretrainedModel:
    """The checkpoint at a folder or hub id that the config calls `key`."""
    return PretrainedModel(name=Path(path).name, path=path, key=key, family=family)


def student(components: Components, dense: str | None) -> Any:
    """Where the student comes from: the dense model, or for a dense run the model of the config."""
    family = getattr(components.model, "family", None)
    return components.model if dense is None else pretrained(dense, "dense.source", family)


def pruners(
    plans: Plans, model: nn.Module, steps: int, steps_per_epoch: int, calibration: Calibration | None = None
) -> tuple[Pruner, ...]:
    """Pruners for `plans` on `model`; the core's complaints in the words of the config.

    Args:
        calibration: see `attach`; not needed where nothing is going to be pruned.

    Raises:
        UserError: a pattern, amount, schedule or choice of layers that cannot work.
    """
    kind, family = model_type(model), family_of_model(model)
    if family is None and not all(plan.layers.include for plan in plans.parts.values()):
        raise UserError(
            f"model: we do not know which layers of a {kind} model are its encoder; say it: "
            f"pattern.layers.include=['encoder'], for example; or describe the family as model.family"
        )
    try:
        heads = getattr(model.config, "num_attention_heads", None)
        family = replace(family or ModelFamily(kind), heads=heads)
        return attach(model, plans.parts, family, steps, steps_per_epoch, calibration)
    except SparsityError as error:
        raise UserError(in_config_words(str(error), plans, error.pruner)) from None


def in_config_words(message: str, plans: Plans, pruner: str | None) -> str:
    """`cap=...` of the core is `pattern.cap=...` on the command line, or `pattern.parts.<name>.cap=...`."""
    part = "pattern." if len(plans.parts) <= 1 else f"pattern.parts.{pruner}."
    message = re.sub(r"(?<![\w.])layers\.(?=\w)", f"{part}layers.", message)
    key = re.match(r"(\w+)=", message)
    if key is None:
        return message if "pattern." in message else f"pattern={plans.name}: {message}"
    if key.group(1) in (*_SHARED, "pattern"):
        return message
    for group, keys in _GROUP_KEYS.items():
        if key.group(1) in keys:
            return f"{group}.{message}" if len(plans.parts) <= 1 else f"{group}.{message} (or {part}{group})"
    return f"{part}layers.{message}" if key.group(1) in _LAYER_KEYS else f"{part}{message}"
