"""Config -> objects. The only place that instantiates, and the last that sees a config."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import hydra
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import set_seed
from omegaconf import DictConfig, OmegaConf
from torch import nn

from hydraprune.errors import UserError
from hydraprune.hub.encoding import check_tokenizer, encode
from hydraprune.hub.examples import Labels, TaskData
from hydraprune.hub.families import family_of, is_known
from hydraprune.hub.metrics import metric
from hydraprune.hub.models import PretrainedModel, model_type
from hydraprune.keys import arguments_of, check_arguments, check_targets
from hydraprune.sparsity import Plans, Pruner, SparsityError, attach
from hydraprune.training.batches import Batches
from hydraprune.training.contracts import Run, Tracker
from hydraprune.training.distillation import Distiller, NoTeacher, OnlineTeacher, Teacher
from hydraprune.training.evaluation import evaluate
from hydraprune.training.parameters import decay_groups
from hydraprune.training.settings import PRECISIONS, Settings

_SCHEDULE_KEYS = ("warmup", "cooldown", "frequency")
_LAYER_KEYS = ("roles", "include", "exclude", "types")


log = logging.getLogger(__name__)

# What torch chose before any run said otherwise: a job must not inherit the threads of the one before it.
_OWN_THREADS = torch.get_num_threads()


@dataclass(frozen=True)
class Parts:
    """What a config says, as objects; nothing loaded yet but what checks need."""

    plans: Plans
    settings: Settings
    distiller: Distiller
    model: Any
    task: Any


@dataclass(frozen=True)
class Built:
    """A run ready to start, and what its report needs beside it."""

    run: Run
    parts: Parts
    tokenizer: Any


def make(config: DictConfig, key: str, node: Any = None, **arguments: Any) -> Any:
    """Instantiate the node at `key` (or `node` in its place).

    Raises:
        UserError: what the target says of its arguments, with the key before it.
    """
    node = OmegaConf.select(config, key) if node is None else node
    if OmegaConf.is_config(node) and (missing := _missing(node, key)):
        raise UserError(f"{missing}: a value is needed here; give it on the command line: {missing}=...")
    check_targets(OmegaConf.to_container(node) if OmegaConf.is_config(node) else node, key)
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


def in_place(key: str, error: Exception) -> str:
    """What a target says of its argument `x=...`, said of the key `key.x`."""
    message = " ".join(str(error).split())
    return f"{key}.{message}" if re.match(r"\w+=", message) else f"{key}: {message}"


def _missing(node: Any, key: str) -> str | None:
    missing = sorted(OmegaConf.missing_keys(node))
    return f"{key}.{missing[0]}" if missing else None


def plans(config: DictConfig) -> Plans:
    """The plans of a config, each with a criterion and a schedule.

    A part's own keys win; where it is silent (null) the nodes `pruner` and `scheduler` speak.
    """
    node = OmegaConf.to_container(config.pattern, resolve=True, throw_on_missing=False)
    assert isinstance(node, dict)
    shared = {key: OmegaConf.to_container(config[key], resolve=True) for key in ("pruner", "scheduler")}
    for name, part in (node.get("parts") or {}).items():
        if not isinstance(part, dict):
            raise UserError(f"pattern.parts.{name}={part}: must be a pattern; ~pattern.parts.{name} leaves it out")
        for key, common in shared.items():
            assert isinstance(common, dict)
            own = {k: value for k, value in (part.pop(key, None) or {}).items() if value is not None}
            if own:
                where = f"pattern.parts.{name}.{key}."
                taken = arguments_of(str(own.get("_target_", common["_target_"])), where)
                part[key] = {k: v for k, v in common.items() if k in taken or k == "_target_"} | own
                check_arguments(part[key], where, set())
    made: Plans = make(config, "pattern", OmegaConf.create(node))
    criterion, schedule = make(config, "pruner"), make(config, "scheduler")
    if (config.phase == "dense") != (not made.parts):
        raise UserError(
            f"phase={config.phase}: does not go with pattern={made.name}; type pattern=dense to fine-tune without "
            f"pruning, which chooses the phase itself, and any other pattern to prune"
        )
    try:
        return Plans(made.name, {name: plan.completed(criterion, schedule) for name, plan in made.parts.items()})
    except SparsityError as error:
        raise UserError(str(error)) from None


def parts(config: DictConfig) -> Parts:
    """The objects of a config, each of which checks its own values."""
    return Parts(
        plans(config), make(config, "training"), make(config, "distill"), make(config, "model"), make(config, "task")
    )


def pretrained(path: str, key: str) -> PretrainedModel:
    """The checkpoint at a folder or hub id that the config calls `key`."""
    return PretrainedModel(name=Path(path).name, path=path, key=key)


def student(made: Parts, dense: str | None) -> Any:
    """Where the student comes from: the dense model, or for a dense run the model of the config."""
    return made.model if dense is None else pretrained(dense, "dense.source")


def pruners(plans: Plans, model: nn.Module, steps: int, steps_per_epoch: int) -> tuple[Pruner, ...]:
    """Pruners for `plans` on `model`; the core's complaints in the words of the config.

    Raises:
        UserError: a pattern, amount, schedule or choice of layers that cannot work.
    """
    kind = model_type(model)
    if not is_known(kind) and not all(plan.layers.include for plan in plans.parts.values()):
        raise UserError(
            f"model: we do not know which layers of a {kind} model are its encoder; say it: "
            f"pattern.layers.include=['encoder'], for example"
        )
    try:
        return attach(model, plans.parts, family_of(kind), steps, steps_per_epoch)
    except SparsityError as error:
        raise UserError(_in_config_words(str(error), plans, error.pruner)) from None


def _in_config_words(message: str, plans: Plans, pruner: str | None) -> str:
    """`cap=...` of the core is `pattern.cap=...` on the command line, or `pattern.parts.<name>.cap=...`."""
    part = "pattern." if len(plans.parts) <= 1 else f"pattern.parts.{pruner}."
    message = re.sub(r"\blayers\.exclude", f"{part}layers.exclude", message)
    key = re.match(r"(\w+)=", message)
    if key is None:
        return message if "pattern." in message else f"pattern={plans.name}: {message}"
    if key.group(1) in _SCHEDULE_KEYS:
        return f"scheduler.{message}" if len(plans.parts) <= 1 else f"scheduler.{message} (or {part}scheduler)"
    return f"{part}layers.{message}" if key.group(1) in _LAYER_KEYS else f"{part}{message}"


def build(config: DictConfig, dense: str | None, trackers: Callable[[int], Tracker]) -> Built:
    """Load everything and put the run together.

    Args:
        dense: folder or id of the model that a sparse run starts from; None for a dense run.
        trackers: makes the run's tracker, given the number of steps.
    """
    torch.set_num_threads(config.runtime.threads or _OWN_THREADS)
    made = parts(config)
    data = load(made.task)
    accelerator = accelerator_for(made.settings)
    set_seed(config.seed)
    source = student(made, dense)
    tokenizer = source.tokenizer()
    # A dense model brings its head; any other gets one for the task.
    model = (source.load() if dense else source.load(data.labels)).to(accelerator.device)
    teacher = _teacher(made, source, model, accelerator)
    train = Batches(
        encode(tokenizer, data.train, made.task.max_length, data.labels.regression),
        made.settings.batch_size,
        shuffle_seed=config.seed,
    )
    per_epoch = made.settings.steps_per_epoch(len(train.data))
    steps = made.settings.epochs * per_epoch
    optimizer = make(config, "optimizer")(decay_groups(model))
    lr_scheduler = make(config, "lr_scheduler", steps=steps, steps_per_epoch=per_epoch)(optimizer)
    run = Run(
        model=model,
        distiller=made.distiller,
        teacher=teacher,
        pruners=pruners(made.plans, model, steps, per_epoch),
        optimizer=accelerator.prepare_optimizer(optimizer),
        lr_scheduler=lr_scheduler,
        accelerator=accelerator,
        settings=made.settings,
        train=train,
        evaluations=_evaluations(made.settings, made.task, data, tokenizer),
        score=scorer(made.task.metrics),
        headline=made.task.metrics[0],
        tracker=trackers(steps),
    )
    # Dropout must not depend on how many numbers loading happened to draw.
    set_seed(config.seed)
    return Built(run, made, tokenizer)


def accelerator_for(settings: Settings) -> Accelerator:
    """A fresh accelerator: jobs of one process must not inherit each other's device or precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(cpu=settings.device == "cpu", mixed_precision=PRECISIONS[settings.precision])


def _teacher(made: Parts, source: Any, student: nn.Module, accelerator: Accelerator) -> Teacher:
    if not made.distiller.needs_teacher:
        return NoTeacher()
    path = made.distiller.teacher
    teacher = (source if path is None else pretrained(path, "distill.teacher")).load().to(accelerator.device)
    if made.distiller.keeps_head:
        # The student learns to speak to its teacher's head, so it must have that head.
        for name in family_of(model_type(student)).outside:
            if name in dict(student.named_modules()):
                student.get_submodule(name).load_state_dict(teacher.get_submodule(name).state_dict())
    return OnlineTeacher(teacher, made.distiller)


@lru_cache(maxsize=2)
def load(task: Any) -> TaskData:
    """A task's examples; remembered, since checks and training both want them."""
    data: TaskData = task.load()
    return data


def scorer(metrics: tuple[str, ...]) -> Any:
    """(predictions, references) -> metric -> value."""
    measure = metric(metrics)

    def score(predictions: Any, references: Any) -> dict[str, float]:
        result: dict[str, float] = measure.compute(predictions=predictions, references=references)
        return result

    return score


def _evaluations(settings: Settings, task: Any, data: TaskData, tokenizer: Any) -> Mapping[str, Batches]:
    return {
        name: Batches(encode(tokenizer, examples, task.max_length, data.labels.regression), settings.eval_batch_size)
        for name, examples in data.evaluations.items()
    }


def evaluate_model(config: DictConfig, path: str, key: str) -> dict[str, float]:
    """Metric -> value of the model at `path`, which the user calls `key`, on the config's task."""
    torch.set_num_threads(config.runtime.threads or _OWN_THREADS)
    settings, task = make(config, "training"), make(config, "task")
    source, data = pretrained(path, key), load(task)
    check_head(source.config(), data.labels, f"{key}={path}", task.name)
    tokenizer = source.tokenizer()
    check_tokenizer(f"{key}={path}", tokenizer, data, source.config(), task.max_length)
    accelerator = accelerator_for(settings)
    model = source.load().to(accelerator.device)
    return evaluate(model, _evaluations(settings, task, data, tokenizer), scorer(task.metrics), accelerator)


def check_head(config: Any, labels: Labels, where: str, task: str) -> None:
    """Refuse a fine-tuned model whose outputs are not the task's labels; say so when only the names differ.

    Raises:
        UserError: another number of labels, or the same names in another order.
    """
    if config.num_labels != labels.count:
        raise UserError(f"{where}: has {config.num_labels} labels and task {task} {labels.count}")
    names = [str(config.id2label[place]).lower() for place in range(labels.count)]
    ours = [name.lower() for name in labels.names]
    if names != ours and sorted(names) == sorted(ours):
        raise UserError(f"{where}: its labels are in the order {names}, and those of task {task} are {ours}")
    if names != ours and not any(name.startswith("label_") for name in names):
        log.warning("%s: its labels %s are taken, in this order, for %s of task %s", where, names, ours, task)
