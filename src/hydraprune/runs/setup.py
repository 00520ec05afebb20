"""Set-up of a run: model, data, teacher, optimizer and pruners, loaded and on their device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import set_seed
from torch import nn

from hydraprune.config import instantiate
from hydraprune.config.instantiate import Components, make, pretrained
from hydraprune.data.batches import Batches, Encoded
from hydraprune.data.encoding import encode, encode_once
from hydraprune.data.examples import Examples, Labels, TaskData
from hydraprune.data.metrics import Metric, metric, metric_name
from hydraprune.data.splits import check_evaluations, check_targets
from hydraprune.data.task_checks import check_task
from hydraprune.kernels import dropout
from hydraprune.kernels.dropout import use_fast_dropout
from hydraprune.models.attention import choose_attention
from hydraprune.models.classification_head import copy_head
from hydraprune.models.compact_embedding import compact
from hydraprune.models.pretrained import ModelSource
from hydraprune.models.tokenizer_checks import check_tokenizer
from hydraprune.runs.experiment import Experiment
from hydraprune.runs.live_setup import LiveSetup
from hydraprune.runs.model_loading import check_head, load_fine_tuned, load_pretrained
from hydraprune.runs.provenance import Provenance, provenance
from hydraprune.sparsity import saliency_kernels
from hydraprune.training.calibration import TrainCalibration
from hydraprune.training.cuda_graphs import GpuCapture
from hydraprune.training.evaluation import Predictions, predict, scores
from hydraprune.training.parameter_groups import decay_groups
from hydraprune.training.processes import Processes
from hydraprune.training.settings import PRECISIONS, Settings
from hydraprune.training.setup import MetricLogger, TrainingSetup
from hydraprune.training.sparse_steps import SparseSteps
from hydraprune.training.teacher_cache import TeacherSpec, make_teacher
from hydraprune.training.teachers import NoTeacher, Teacher
from hydraprune.utils.cache import Cache, cache_of
from hydraprune.utils.system import keep_freed_memory

log = logging.getLogger(__name__)

# What torch chose before any run set another number: a job must not inherit the threads of the job before it.
OWN_THREADS = torch.get_num_threads()


class TaskLoader:
    """Loads the data of tasks and keeps that of the last one, which preflight and training both need."""

    def __init__(self) -> None:
        self._key: object = None
        self._data: TaskData | None = None

    def __call__(self, experiment: Experiment) -> TaskData:
        """The data of an experiment's task."""
        key = experiment.config["task"]
        if self._data is None or key != self._key:
            task = experiment.components.task
            check_task(task)
            self._data, self._key = task.load(), key
        return self._data


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train, except for its tracker.

    Args:
        training: makes the objects of the training, given its tracker.
        tokenizer: of the model.
        steps: optimizer steps of the whole training.
        teacher_seconds: spent on the teacher's outputs.
        provenance: the data, checkpoint and layers of the run.
    """

    training: Callable[[MetricLogger], TrainingSetup]
    tokenizer: Any
    steps: int
    teacher_seconds: float
    provenance: Provenance


def prepare(experiment: Experiment, dense: str | None, load_data: TaskLoader, threads: int | None = None) -> Prepared:
    """Load everything that a run needs and assemble it.

    Args:
        dense: folder or id of the model that a sparse run starts from; None for a dense run.
        threads: number of threads of a resumed run, which may differ from its config's; None: the config's.
    """
    config, components = experiment.config, experiment.components
    use_runtime(experiment, threads)
    cache = cache_of(config["cache"])
    settings, task = components.settings, components.task
    data = load_data(experiment)
    accelerator = accelerator_for(settings)
    set_seed(config["seed"])
    source = instantiate.student(components, dense)
    tokenizer = source.tokenizer()
    # A dense model has its head; a pretrained one gets a head for the task.
    load = load_fine_tuned if dense else load_pretrained
    model = load(source, data.labels, tokenizer).to(accelerator.device)

    def encoded(examples: Examples) -> Encoded:
        return encode_once(tokenizer, examples, task.max_length, data.labels, cache)

    few = _few_widths(settings, task, accelerator.device)
    train = Batches(encoded(data.train), settings.batch_size, config["seed"], settings.length_grouping, few)
    evaluations = {name: encoded(examples) for name, examples in data.evaluations.items()}
    for name, tokens in {"train": train.data, **evaluations}.items():
        check_targets(tokens, name)
    per_epoch = settings.steps_per_epoch(train.data.groups)
    steps = settings.epochs * per_epoch
    live = LiveSetup(experiment, accelerator, cache, train.data)
    # Without training steps no teacher is needed.
    teacher, seconds = (
        _teacher(components, source, model, train.data, data.labels, accelerator, cache, live)
        if steps
        else (NoTeacher(), 0.0)
    )
    pruners = instantiate.pruners(
        components.plans, model, steps, per_epoch, TrainCalibration(model, train, accelerator)
    )
    made_from = provenance(data, {"train": train.data, **evaluations}, model, pruners, components)
    make_optimizer = make(config, "optimizer")
    _speed_up(model, settings, accelerator.device, make_optimizer, [train.data, *evaluations.values()])
    optimizer = make_optimizer(decay_groups(model))
    processes = Processes.current()
    if processes.alone and steps:
        sparse = live.sparse_steps(model, pruners, optimizer)
    else:
        sparse = SparseSteps(None, pruners)
        if steps:
            log.info("Every step is dense: the run has %d processes", processes.count)
    lr_scheduler = make(config, "lr_scheduler", steps=steps, steps_per_epoch=per_epoch)(optimizer)
    batches = {name: Batches(data, settings.eval_batch_size, few_widths=few) for name, data in evaluations.items()}
    prepared_optimizer = accelerator.prepare_optimizer(optimizer)

    score = scorer(task.metrics, data.labels)

    def training(tracker: MetricLogger) -> TrainingSetup:
        # Dropout must not depend on how many random numbers loading, or starting a tracker, drew.
        set_seed(config["seed"])
        return TrainingSetup(
            model=model,
            distiller=components.distiller,
            teacher=teacher,
            pruners=pruners,
            optimizer=prepared_optimizer,
            lr_scheduler=lr_scheduler,
            accelerator=accelerator,
            settings=settings,
            train=train,
            evaluations=batches,
            score=score,
            headline=metric_name(task.metrics[0]),
            tracker=tracker,
            sparse_steps=sparse,
            capture=GpuCapture() if settings.cuda_graphs else None,
            processes=processes,
        )

    return Prepared(training, tokenizer, steps, seconds, made_from)


def threads_of(experiment: Experiment) -> int:
    """The threads that torch computes with in a run."""
    return int(experiment.config["runtime"]["threads"] or OWN_THREADS)


def use_runtime(experiment: Experiment, threads: int | None = None) -> None:
    """Set how this process computes: threads, compiled code, memory."""
    config = experiment.config
    torch.set_num_threads(threads or threads_of(experiment))
    keep_freed_memory()
    folder = cache_of(config["cache"]).folder / "native" if config["runtime"]["compiled"] else None
    used = [saliency_kernels.use_compiled(folder), dropout.use_compiled(folder)]
    if folder is not None and not all(used):
        log.info("C kernels off (no compiler, or %s is writable by others); using PyTorch", folder)


def _few_widths(settings: Settings, task: Any, device: torch.device) -> int:
    few = settings.cuda_graphs or (settings.precision == "bf16" and device.type == "cpu")
    return int(task.max_length) if few else 0


def _speed_up(
    model: nn.Module, settings: Settings, device: torch.device, make_optimizer: Any, data: list[Encoded]
) -> None:
    """Replace modules of the model by faster ones with the same results."""
    if device.type != "cpu":
        choose_attention(model, device)
    elif settings.fast_dropout:
        choose_attention(model, device)
        use_fast_dropout(model)
    if settings.compact_vocabulary:
        compact(model, make_optimizer, data)


def accelerator_for(settings: Settings) -> Accelerator:
    """A fresh accelerator: jobs of one process must not inherit each other's device or precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(cpu=settings.device == "cpu", mixed_precision=PRECISIONS[settings.precision])


def _teacher(
    components: Components,
    source: Any,
    student: nn.Module,
    data: Encoded,
    labels: Labels,
    accelerator: Accelerator,
    cache: Cache,
    live: LiveSetup,
) -> tuple[Teacher, float]:
    """The run's teacher, and the seconds that its outputs took."""
    if not components.distiller.needs_teacher:
        return NoTeacher(), 0.0
    path = components.distiller.teacher
    given = source if path is None else pretrained(path, "distill.teacher", components.family)
    teacher = load_fine_tuned(given, labels, given.tokenizer()).to(accelerator.device)
    if components.distiller.keeps_head:
        copy_head(teacher, student)  # the student learns its teacher's hidden states, so it needs the teacher's head
    choose_attention(teacher, accelerator.device)
    settings = components.settings
    batches = Batches(
        data, settings.eval_batch_size, few_widths=_few_widths(settings, components.task, accelerator.device)
    )
    key, path = ("dense.source", source.path) if path is None else ("distill.teacher", path)
    kernels = live.speed_up(teacher)
    spec = TeacherSpec(teacher, components.distiller, batches, accelerator, settings.precision, key, path, kernels)
    return make_teacher(spec, cache)


def scorer(metrics: Sequence[str | Metric], labels: Labels | None = None) -> Any:
    """(predictions, references) -> metric -> value."""
    measure = metric(metrics, labels)

    def score(predictions: Any, references: Any) -> dict[str, float]:
        result: dict[str, float] = measure.compute(predictions=predictions, references=references)
        return result

    return score


def evaluate_model(experiment: Experiment, path: str, key: str, load_data: TaskLoader) -> dict[str, float]:
    """Metric -> value of the model at `path`, which the config or command line names at `key`, on the task.

    Raises:
        UserError: see `predict_with`.
    """
    return scores_of(experiment, predict_with(experiment, path, key, load_data), load_data)


def scores_of(experiment: Experiment, predicted: Mapping[str, Predictions], load_data: TaskLoader) -> dict[str, float]:
    """Metric -> value of some predictions for the task's evaluation sets."""
    return scores(predicted, scorer(experiment.components.task.metrics, load_data(experiment).labels))


def predict_with(experiment: Experiment, path: str, key: str, load_data: TaskLoader) -> dict[str, Predictions]:
    """Evaluation set -> predictions of the model at `path`, which the config or command line names at `key`.

    Raises:
        UserError: the model or the data cannot be loaded, or they do not fit together.
    """
    use_runtime(experiment)
    source, data = pretrained(path, key), load_data(experiment)
    check_evaluations(data, experiment.components.task.metrics)
    return predict_on(experiment, source, key, path, data)


def predict_on(
    experiment: Experiment, source: ModelSource, key: str, path: str, data: TaskData
) -> dict[str, Predictions]:
    """Evaluation set of some data -> predictions of the model at `path`, which `key` names and `source` loads.

    Raises:
        UserError: the model cannot be loaded, or does not fit the data.
    """
    settings, task = experiment.components.settings, experiment.components.task
    check_head(source.config(), data.labels, key, path, task.name)
    tokenizer = source.tokenizer()
    check_tokenizer(key, path, tokenizer, data, source.blueprint(), task.max_length)
    accelerator = accelerator_for(settings)
    model = load_fine_tuned(source, data.labels, tokenizer).to(accelerator.device)
    few = _few_widths(settings, task, accelerator.device)
    encoded = {
        name: encode(tokenizer, examples, task.max_length, data.labels) for name, examples in data.evaluations.items()
    }
    for name, tokens in encoded.items():
        check_targets(tokens, name)
    evaluations = {name: Batches(d, settings.eval_batch_size, few_widths=few) for name, d in encoded.items()}
    return predict(model, evaluations, accelerator)
