"""Instantiation of the objects that a config describes. No other module instantiates targets."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from hydraprune.config.allowlist import check_targets, target_of
from hydraprune.config.construction import construct
from hydraprune.config.schema import arguments_of, check_arguments
from hydraprune.data.examples import Task
from hydraprune.errors import UserError
from hydraprune.models.families import ModelFamily, family_with_heads
from hydraprune.models.layer_roles import encoder_layers
from hydraprune.models.pretrained import ModelSource, PretrainedModel
from hydraprune.sparsity import Calibration, Method, Never, Plans, Pruner, Schedule, SparsityError, attach
from hydraprune.training.distillation import Distiller
from hydraprune.training.settings import Settings

# Nodes that all parts of a pattern share, in the order in which a plan takes them.
_SHARED = ("pruner", "scheduler", "progressive", "regularizer")


class Components:
    """The objects that a config describes, each made once, when it is first needed. No model or data is loaded.

    Args:
        config: resolved, plain values.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    @cached_property
    def plans(self) -> Plans:
        """The plans of its pruners."""
        return plans(self._config)

    @cached_property
    def settings(self) -> Settings:
        """The settings of its training."""
        made: Settings = make(self._config, "training")
        return made

    @cached_property
    def distiller(self) -> Distiller:
        """The distillation loss."""
        made: Distiller = make(self._config, "distill")
        return made

    @cached_property
    def model(self) -> ModelSource:
        """The source of the pretrained model."""
        made: ModelSource = make(self._config, "model")
        return made

    @property
    def family(self) -> ModelFamily | None:
        """The model family that the config describes, if it does."""
        return getattr(self.model, "family", None)

    @cached_property
    def task(self) -> Task:
        """The task, its data not loaded."""
        made: Task = make(self._config, "task", _with_metric_functions(self._config["task"]))
        return made


def make(config: Mapping[str, Any], key: str, node: Any = None, **arguments: Any) -> Any:
    """Instantiate the node at `key` of a resolved config (or `node` in its place).

    Raises:
        UserError: what the target raises about its arguments, with the key before them.
    """
    node = config[key] if node is None else node
    # Plain values, so that a target inside a list is found too, and a text stays a text.
    node = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    check_targets(node, key)
    return construct(node, key, **arguments)


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


def plans(config: Mapping[str, Any]) -> Plans:
    """The plans of a resolved config, each with a criterion and a schedule.

    Keys of a part take precedence; where they are null, the nodes of the same names at the top apply.
    """
    node = copy.deepcopy(config["pattern"])
    shared = {key: config[key] for key in _SHARED}
    for name, part in (node.get("parts") or {}).items():
        if not re.fullmatch(r"\w[\w.:+-]{0,63}", str(name)):
            raise UserError(
                "a part is named by letters, digits and any of _.:+-", key=f"pattern.parts.{str(name)[:80]!r}"
            )
        if not isinstance(part, dict):
            raise UserError(
                "must be a pattern",
                key=f"pattern.parts.{name}",
                value=part,
                cure=f"~pattern.parts.{name} leaves it out",
            )
        if part.get("_target_") is None:
            raise UserError(
                "must name a pattern's function, as in conf/pattern/", key=f"pattern.parts.{name}._target_", value=None
            )
        layers = part.get("layers")
        if isinstance(layers, dict) and layers.get("_target_") is None:
            raise UserError(
                "must name hydraprune.sparsity.Layers", key=f"pattern.parts.{name}.layers._target_", value=None
            )
        for key, other in shared.items():
            own = {k: value for k, value in (part.pop(key, None) or {}).items() if value is not None}
            if own:
                where = f"pattern.parts.{name}.{key}."
                taken = arguments_of(str(own.get("_target_", other["_target_"])), where)
                part[key] = {k: v for k, v in other.items() if k in taken or k == "_target_"} | own
                check_arguments(part[key], where, set())
    made: Plans = make(config, "pattern", node)
    common = [make(config, key) for key in _SHARED]
    if made.name == "lock":
        _check_lock(*common[:2])
    if (config["phase"] == "dense") != (not made.parts):
        raise UserError(
            f"does not go with pattern={made.name}",
            key="phase",
            value=config["phase"],
            cure="leave it out: pattern=dense fine-tunes without pruning, any other pattern prunes",
        )
    try:
        return Plans(made.name, {name: plan.completed(*common) for name, plan in made.parts.items()})
    except SparsityError as error:
        raise UserError.of(error) from None


def pattern_name(config: Mapping[str, Any]) -> str:
    """The name of a resolved config's pattern. Methods, schedules and the rest of a run's plans are not made.

    Raises:
        UserError: the pattern cannot be made.
    """
    node = copy.deepcopy(config["pattern"])
    for part in (node.get("parts") or {}).values():
        for key in _SHARED if isinstance(part, dict) else ():
            part.pop(key, None)  # not part of the name, and incomplete without the nodes at the top
    made: Plans = make(config, "pattern", node)
    return made.name


def _check_lock(criterion: Method, schedule: Schedule | Never) -> None:
    """Refuse a criterion or schedule with a pattern that uses neither."""
    for key, given in (("pruner", criterion), ("scheduler", schedule)):
        if given.prunes:
            raise UserError("prunes nothing", key="pattern", value="lock", cure=f"leave {key} out, or type {key}=none")


def pretrained(path: str, key: str, family: ModelFamily | None = None) -> PretrainedModel:
    """The checkpoint at a folder or hub id, which the config names at `key`."""
    return PretrainedModel(name=Path(path).name, path=path, key=key, family=family)


def student(components: Components, dense: str | None) -> ModelSource:
    """The source of the student: the dense model, or for a dense run the config's model."""
    return components.model if dense is None else pretrained(dense, "dense.source", components.family)


def pruners(
    plans: Plans, model: nn.Module, steps: int, steps_per_epoch: int, calibration: Calibration | None = None
) -> tuple[Pruner, ...]:
    """Pruners for `plans` on `model`.

    Args:
        calibration: see `attach`; not needed where the pruners are only checked.

    Raises:
        UserError: a pattern, amount, schedule or choice of layers that cannot work, under its config key.
    """
    family = family_with_heads(model)
    if not family.roles and not encoder_layers(model) and not all(plan.layers.include for plan in plans.parts.values()):
        raise UserError(
            f"a {family.name} model has no linear layers in numbered blocks, and so no known encoder layers",
            key="model",
            cure="name some in pattern.layers.include, or describe the family as model.family (docs/extending.md)",
        )
    try:
        return attach(model, plans.parts, family, steps, steps_per_epoch, calibration)
    except SparsityError as error:
        raise with_config_keys(error, plans) from None


def with_config_keys(error: SparsityError, plans: Plans) -> UserError:
    """An error of a pruner under the config's keys: `cap` becomes `pattern.cap`, or `pattern.parts.<name>.cap`.

    Keys of nodes that all parts of a pattern share (`scheduler.warmup`) stay as they are.
    """
    single = len(plans.parts) <= 1
    part = "pattern" if single else f"pattern.parts.{error.pruner}"
    key, reason, cure = error.key, error.reason, error.cure_under(part)
    if key is None:
        # A cure with a setting already names the pattern.
        known = {} if error.setting else {"key": "pattern", "value": plans.name}
        return UserError(reason, cure=cure, **known)
    group = key.partition(".")[0]
    if group == "family":
        key = f"model.{key}"
    elif group not in (*_SHARED, "pattern"):
        key = f"{part}.{key}"
    elif group != key and not single:
        cure = f"{cure or reason} (or {part}.{group})"
    return UserError.of(SparsityError(reason, key=key, value=error.value, cure=cure))
