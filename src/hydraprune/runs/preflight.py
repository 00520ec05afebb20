"""Preflight: checks of config, data and shapes before anything is trained or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hydraprune.config import instantiate
from hydraprune.config.construction import target_error
from hydraprune.config.identity import escapes
from hydraprune.config.instantiate import Components, with_config_keys
from hydraprune.data.encoding import estimated_size
from hydraprune.data.examples import TaskData
from hydraprune.data.splits import check_splits
from hydraprune.data.task_checks import check_metrics
from hydraprune.errors import UserError
from hydraprune.models.classification_head import head_modules
from hydraprune.models.families import max_positions
from hydraprune.models.tokenizer_checks import check_tokenizer
from hydraprune.runs.directory import check_directory, finished
from hydraprune.runs.experiment import Experiment
from hydraprune.runs.model_loading import check_dense_run, check_head, load_fine_tuned, starting_model
from hydraprune.runs.setup import TaskLoader
from hydraprune.runs.trial_batch import Trials, trial_batch, try_out
from hydraprune.sparsity import SparsityError
from hydraprune.training.distillation import NoDistillation
from hydraprune.utils.cache import cache_of
from hydraprune.utils.files import check_place

MOST_THREADS = 1024
# Two numbers of four bytes a token: its id and its type.
_TOKEN_BYTES = 8


@dataclass(frozen=True)
class Needs:
    """Steps and disk space that a run needs.

    Args:
        steps: optimizer steps.
        model_bytes: of the saved model.
        answer_bytes: of its teacher's outputs in the cache, estimated from some of the examples; 0 if not cached.
        token_bytes: of its task's tokens in the cache, estimated likewise.
    """

    steps: int
    model_bytes: int
    answer_bytes: int
    token_bytes: int


def preflight(experiment: Experiment, load_data: TaskLoader) -> Needs | None:
    """Check a run, and its dense run, before its directory is made.

    Returns:
        What the run needs; None if it is finished.

    Raises:
        UserError: see `check`; or the run's directory holds something else, or cannot be written.
    """
    if finished(experiment) is not None:
        return None
    check_directory(experiment)
    check_device(experiment)
    dense, trials = experiment.dense, Trials()
    if dense is not None and finished(dense) is None:
        check_directory(dense)
        check(dense, load_data, trials)
    return check(experiment, load_data, trials)


def check(experiment: Experiment, load_data: TaskLoader, trials: Trials) -> Needs:
    """Check a run that is not finished, but for its directory and seed. Reads the data and the model's shapes.

    Args:
        trials: of the runs that were checked before; a combination that was tried is not tried again.

    Returns:
        What the run needs.

    Raises:
        UserError: naming the key, the value and the cure.
    """
    config, components, dense = experiment.config, experiment.components, experiment.dense_source
    check_numbers(experiment)
    _check_cache(experiment)
    instantiate.make(config, "tracker")
    plans, settings, task = components.plans, components.settings, components.task
    if settings.epochs == 0 and not plans.parts:
        raise UserError(
            "a dense run neither trains nor prunes then", key="training.epochs", value=0, cure="give at least 1"
        )
    if dense is None and any(plan.criterion and plan.criterion.needs_zeros for plan in plans.parts.values()):
        raise UserError(
            f"dense.source={config['dense']['source']} trains a model without zeros to keep",
            key="pattern",
            value="lock",
            cure="name a sparse one: dense.source=<folder or hub id>",
        )
    data = load_data(experiment)
    check_metrics(task.metrics, data.labels)
    check_splits(data, task.metrics)
    source = instantiate.student(components, dense)
    if dense:
        check_head(source.config(), data.labels, "dense.source", dense, task.name)
    check_dense_run(experiment, data.labels)
    blueprint = source.blueprint(None if dense else data.labels)
    tokenizer = source.tokenizer()
    key, named = ("dense.source", dense) if dense else ("model", components.model.name)
    check_tokenizer(key, named, tokenizer, data, blueprint, task.max_length)
    sizes = task_sizes(experiment, tokenizer, data)
    per_epoch = settings.steps_per_epoch(sizes["train"][0] // data.labels.group)
    steps = settings.epochs * per_epoch
    instantiate.pruners(plans, blueprint, steps, per_epoch)
    _check_optimizer(experiment, steps, per_epoch)
    teacher = _check_teacher(components, blueprint.config, tokenizer, data)
    is_new, starts_here = trials.is_new(experiment), bool(dense) or not plans.parts
    if is_new or starts_here:
        # Loaded, since a weight that the checkpoint lacks would be random.
        model, _ = starting_model(experiment, data.labels)
        if starts_here:
            _check_start(components, model, steps, per_epoch)
        if is_new:
            loss = components.distiller if settings.epochs else NoDistillation()
            try_out(model, teacher or model, loss, trial_batch(data, tokenizer, task.max_length), (key, named))
    model_bytes = sum(weight.numel() * weight.element_size() for weight in blueprint.parameters())
    return Needs(steps, model_bytes, *_cached_bytes(experiment, blueprint.config, data, sizes))


def task_sizes(experiment: Experiment, tokenizer: Any, data: TaskData) -> dict[str, tuple[int, int]]:
    """`train` and the names of the evaluation sets -> (rows, tokens, which may be estimated)."""
    cache, longest = cache_of(experiment.config["cache"]), experiment.components.task.max_length
    return {
        name: estimated_size(tokenizer, examples, longest, data.labels, cache)
        for name, examples in {"train": data.train, **data.evaluations}.items()
    }


def _check_start(components: Components, model: nn.Module, steps: int, per_epoch: int) -> None:
    """Refuse a model whose zeros the pruners cannot start from."""
    for pruner in instantiate.pruners(components.plans, model, steps, per_epoch):
        try:
            pruner.begin()
        except SparsityError as error:
            raise with_config_keys(error.of(pruner.name), components.plans) from None


def _cached_bytes(
    experiment: Experiment, model: Any, data: TaskData, sizes: Mapping[str, tuple[int, int]]
) -> tuple[int, int]:
    """Bytes of teacher outputs and of tokens that will be cached."""
    components = experiment.components
    cache, distiller = cache_of(experiment.config["cache"]), components.distiller
    answers = 0
    if distiller.needs_teacher and distiller.cacheable and not distiller.online and components.settings.epochs:
        rows = sizes["train"][distiller.rows_per_token(data.labels)]
        answers = rows * (model.hidden_size if distiller.per_token else data.labels.width(model)) * 4
    kept = sum(tokens for _, tokens in sizes.values()) * _TOKEN_BYTES
    return answers if cache.admits(answers) else 0, kept if cache.admits(kept) else 0


def check_device(experiment: Experiment) -> None:
    """Refuse a device or precision that this machine does not have.

    Raises:
        UserError: naming the device.
    """
    try:
        experiment.components.settings.check_device()
    except SparsityError as error:
        raise UserError.of(error, "training") from None


def check_sweep(name: object) -> None:
    """Refuse a sweep whose folder would not be below multirun_sweeps/.

    Raises:
        UserError: naming what a name may be.
    """
    if not isinstance(name, (str, int)) or isinstance(name, bool) or escapes(str(name)):
        raise UserError(
            "must be a name, for a folder below multirun_sweeps/",
            key="sweep",
            value=repr(str(name)[:80]),
            cure="hydra.sweep.dir=FOLDER is for any other place",
        )


def check_numbers(experiment: Experiment) -> None:
    """Refuse an impossible seed, number of threads or switch.

    Raises:
        UserError: naming the range.
    """
    config = experiment.config
    runtime = config["runtime"]
    seed, threads, density = config["seed"], runtime["threads"], runtime["switch_density"]
    if not 0 <= seed < 2**32:
        raise UserError("must be at least 0 and below 2^32", key="seed", value=seed)
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UserError(f"must be at least 1 and at most {MOST_THREADS}, or null", key="runtime.threads", value=threads)
    for key in ("compiled", "sparse_steps"):
        if not isinstance(runtime[key], bool):
            raise UserError("must be true or false", key=f"runtime.{key}", value=runtime[key])
    if density is not None and not 0 <= density <= 1:
        raise UserError("must be at least 0 and at most 1, or null", key="runtime.switch_density", value=density)


def _check_cache(experiment: Experiment) -> None:
    """Refuse a cache of impossible size, or in a folder that cannot be written.

    Raises:
        UserError: naming the range, or the folder that cannot be written.
    """
    cache = cache_of(experiment.config["cache"])
    if cache.max_gb > 0:
        check_place(cache.folder, "cache.dir")


def _check_optimizer(experiment: Experiment, steps: int, steps_per_epoch: int) -> None:
    # On a stand-in parameter: torch's optimizers check their numbers when they are made.
    try:
        key = "optimizer"
        optimizer = _maker(experiment.config, key)([{"params": [nn.Parameter(torch.zeros(1))]}])
        key = "lr_scheduler"
        _maker(experiment.config, key, steps=steps, steps_per_epoch=steps_per_epoch)(optimizer)
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        raise target_error(error, key) from None


def _maker(config: Mapping[str, Any], key: str, **arguments: int) -> Any:
    """The function that makes the object at `key` from the parameters, or from the optimizer."""
    reason, partial = "must be true, since the rest is given when the model is there", f"{key}._partial_"
    try:
        made = instantiate.make(config, key, **arguments)
    except UserError as error:
        if config[key].get("_partial_"):
            raise
        raise UserError(f"{reason} ({error})", key=partial) from None
    if not callable(made):
        raise UserError(reason, key=partial)
    return made


def _check_teacher(components: Components, student: Any, tokenizer: Any, data: TaskData) -> nn.Module | None:
    """The teacher that `distill.teacher` names, loaded; None without one."""
    distiller = components.distiller
    if not distiller.needs_teacher:
        return None
    path = distiller.teacher
    if not components.plans.parts:
        if distiller.keeps_head:
            raise UserError(
                "trains no head, and a dense run needs one",
                key="distill",
                value="hidden",
                cure="use distill=logits or none",
            )
        if path is None:
            raise UserError(
                "a dense run starts from no dense model", key="distill.teacher", value=None, cure="name a teacher"
            )
    if path is None:
        if why := distiller.misfit(student, student):
            raise UserError(why, key="distill")
        return None
    key = "distill.teacher"
    teacher = instantiate.pretrained(path, key, components.family)
    config, other = teacher.config(), teacher.tokenizer()
    if why := distiller.misfit(student, config):
        raise UserError(why, key=key, value=path)
    check_head(config, data.labels, key, path, components.task.name)
    if other.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            "its tokenizer differs from the student's, so the two would read different tokens",
            key=key,
            value=path,
            cure="give a teacher with the same vocabulary",
        )
    is_pair = data.labels.problem != "token classification" and len(data.train.texts[0]) > 1
    if is_pair and set(other.model_input_names) - set(tokenizer.model_input_names):
        raise UserError(
            "distinguishes the two texts of an example by token types, which the student's tokenizer does not make",
            key=key,
            value=path,
            cure="give a teacher of the student's family",
        )
    shapes = teacher.blueprint()
    if (positions := max_positions(shapes)) < components.task.max_length:
        raise UserError(f"has {positions} positions, fewer than task.max_length", key=key, value=path)
    if distiller.keeps_head and not head_modules(shapes):
        raise UserError(
            f"it is not known which layers of a {config.model_type} are its head",
            key=key,
            value=path,
            cure="use distill=logits",
        )
    return load_fine_tuned(teacher, data.labels, other)
