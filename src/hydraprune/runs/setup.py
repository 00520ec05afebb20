"""Objects -> a run ready to start: everything loaded, put together and on its device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import set_seed
from omegaconf import DictConfig
from torch import nn

from hydraprune.config import instantiate as assembly
from hydraprune.config.instantiate import Parts, make, pretrained
from hydraprune.data.batches import Batches, Encoded
from hydraprune.data.encoding import encode, encode_once
from hydraprune.data.examples import Examples, Labels, TaskData
from hydraprune.data.metrics import Metric, metric, metric_name
from hydraprune.data.splits import check_evaluations
from hydraprune.data.task_checks import check_task
from hydraprune.errors import UserError
from hydraprune.models import dropout
from hydraprune.models.attention import choose_attention
from hydraprune.models.compact_embedding import compact
from hydraprune.models.dropout import use_fast_dropout
from hydraprune.models.families import family_of_model
from hydraprune.models.tokenizer_checks import check_tokenizer
from hydraprune.sparsity import saliency_kernels as products
from hydraprune.training.calibration import calibration_of
from hydraprune.training.evaluation import evaluate
from hydraprune.training.parameter_groups import decay_groups
from hydraprune.training.settings import PRECISIONS, Settings
from hydraprune.training.setup import MetricLogger, TrainingSetup
from hydraprune.training.teacher_cache import TeacherSpec, make_teacher
from hydraprune.training.teachers import NoTeacher, Teacher
from hydraprune.utils.cache import Cache, cache_of
from hydraprune.utils.system import keep_freed_memory

log = logging.getLogger(__name__)

# What torch chose before any run said otherwise: a job must not inherit the threads of the one before it.
OWN_THREADS = torch.get_num_threads()


@dataclass(frozen=True)
class Built:
    """A run ready to start, and what its report needs beside it: the seconds spent on `asking` the teacher, too."""

    run: TrainingSetup
    parts: Parts
    tokenizer: Any
    asking: float


def build(config: DictConfig, dense: str | None, trackers: Callable[[int], MetricLogger]) -> Built:
    """Load everything and put the run together.

    Args:
        dense: folder or id of the model that a sparse run starts from; None for a dense run.
        trackers: makes the run's tracker, given the number of steps.
    """
    _settle(config)
    made, cache = assembly.parts(config), cache_of(config.cache)
    settings = made.settings
    data = load(made.task)
    accelerator = accelerator_for(settings)
    set_seed(config.seed)
    source = assembly.student(made, dense)
    tokenizer = source.tokenizer()
    # A dense model brings its head; any other gets one for the task.
    model = (source.load() if dense else source.load(data.labels)).to(accelerator.device)

    def encoded(examples: Examples) -> Encoded:
        return encode_once(tokenizer, examples, made.task.max_length, data.labels.regression, cache)

    few = _few_widths(settings, made.task, accelerator.device)
    train = Batches(encoded(data.train), settings.batch_size, config.seed, settings.length_grouping, few)
    evaluations = {name: encoded(examples) for name, examples in data.evaluations.items()}
    per_epoch = settings.steps_per_epoch(len(train.data))
    steps = settings.epochs * per_epoch
    # Without a step nothing is learned from a teacher, so none is asked.
    teacher, asked = _teacher(made, source, model, train.data, accelerator, cache) if steps else (NoTeacher(), 0.0)
    optimizers = make(config, "optimizer")
    _quicken(model, settings, accelerator.device, optimizers, [train.data, *evaluations.values()])
    optimizer = optimizers(decay_groups(model))
    lr_scheduler = make(config, "lr_scheduler", steps=steps, steps_per_epoch=per_epoch)(optimizer)
    run = TrainingSetup(
        model=model,
        distiller=made.distiller,
        teacher=teacher,
        pruners=assembly.pruners(made.plans, model, steps, per_epoch, calibration_of(model, train, accelerator)),
        optimizer=accelerator.prepare_optimizer(optimizer),
        lr_scheduler=lr_scheduler,
        accelerator=accelerator,
        settings=settings,
        train=train,
        evaluations={
            name: Batches(data, settings.eval_batch_size, few_widths=few) for name, data in evaluations.items()
        },
        score=scorer(made.task.metrics, data.labels.regression),
        headline=metric_name(made.task.metrics[0]),
        tracker=trackers(steps),
    )
    # Dropout must not depend on how many numbers loading happened to draw.
    set_seed(config.seed)
    return Built(run, made, tokenizer, asked)


def _settle(config: DictConfig) -> None:
    """How this process computes: threads, compiled code, memory."""
    torch.set_num_threads(config.runtime.threads or OWN_THREADS)
    keep_freed_memory()
    folder = cache_of(config.cache).folder / "native" if config.runtime.compiled else None
    used = [products.use_compiled(folder), dropout.use_compiled(folder)]
    if folder is not None and not all(used):
        log.info("No compiled code (no C compiler, or %s is not ours alone): torch does it, somewhat slower", folder)


def _few_widths(settings: Settings, task: Any, device: torch.device) -> int:
    return int(task.max_length) if settings.precision == "bf16" and device.type == "cpu" else 0


def _quicken(model: nn.Module, settings: Settings, device: torch.device, optimizers: Any, data: list[Encoded]) -> None:
    """Spare the model work that does not show in what it learns."""
    if device.type != "cpu":
        choose_attention(model, device)
    elif settings.fast_dropout:
        choose_attention(model, device)
        use_fast_dropout(model)
    if settings.compact_vocabulary:
        compact(model, optimizers, data)


def accelerator_for(settings: Settings) -> Accelerator:
    """A fresh accelerator: jobs of one process must not inherit each other's device or precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(cpu=settings.device == "cpu", mixed_precision=PRECISIONS[settings.precision])


def _teacher(
    made: Parts, source: Any, student: nn.Module, data: Encoded, accelerator: Accelerator, cache: Cache
) -> tuple[Teacher, float]:
    """The run's teacher, and the seconds it took to ask it."""
    if not made.distiller.needs_teacher:
        return NoTeacher(), 0.0
    path = made.distiller.teacher
    family = getattr(made.model, "family", None)
    teacher = (source if path is None else pretrained(path, "distill.teacher", family)).load().to(accelerator.device)
    if made.distiller.keeps_head:
        # The student learns to speak to its teacher's head, so it must have that head.
        known = family_of_model(student)
        for name in () if known is None else known.outside:
            if name in dict(student.named_modules()):
                student.get_submodule(name).load_state_dict(teacher.get_submodule(name).state_dict())
    choose_attention(teacher, accelerator.device)
    settings = made.settings
    batches = Batches(data, settings.eval_batch_size, few_widths=_few_widths(settings, made.task, accelerator.device))
    key, path = ("dense.source", source.path) if path is None else ("distill.teacher", path)
    return make_teacher(
        TeacherSpec(teacher, made.distiller, batches, accelerator, settings.precision, key, path), cache
    )


@lru_cache(maxsize=2)
def load(task: Any) -> TaskData:
    """A task's examples; remembered, since checks and training both want them."""
    check_task(task)
    data: TaskData = task.load()
    return data


def scorer(metrics: Sequence[str | Metric], regression: bool | None = None) -> Any:
    """(predictions, references) -> metric -> value."""
    measure = metric(metrics, regression)

    def score(predictions: Any, references: Any) -> dict[str, float]:
        result: dict[str, float] = measure.compute(predictions=predictions, references=references)
        return result

    return score


def evaluate_model(config: DictConfig, path: str, key: str) -> dict[str, float]:
    """Metric -> value of the model at `path`, which the user calls `key`, on the config's task."""
    _settle(config)
    settings, task = make(config, "training"), make(config, "task")
    source, data = pretrained(path, key), load(task)
    check_evaluations(data, task.metrics)
    check_head(source.config(), data.labels, f"{key}={path}", task.name)
    tokenizer = source.tokenizer()
    check_tokenizer(key, path, tokenizer, data, source.blueprint(), task.max_length)
    accelerator = accelerator_for(settings)
    model = source.load().to(accelerator.device)
    few = _few_widths(settings, task, accelerator.device)
    encoded = {
        name: encode(tokenizer, examples, task.max_length, data.labels.regression)
        for name, examples in data.evaluations.items()
    }
    evaluations = {name: Batches(d, settings.eval_batch_size, few_widths=few) for name, d in encoded.items()}
    return evaluate(model, evaluations, scorer(task.metrics, data.labels.regression), accelerator)


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
