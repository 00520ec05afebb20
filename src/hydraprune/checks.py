"""What can be refused before anything is trained or written? Everything that a config, data and shapes can tell."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from hydraprune import assembly
from hydraprune.assembly import Parts
from hydraprune.errors import UserError
from hydraprune.hub.encoding import check_tokenizer
from hydraprune.hub.tasks import TaskData


def check(config: DictConfig, dense: str | None) -> Parts:
    """Find whatever can be found wrong with a run before anything is trained or written.

    Reads the data and the model's shapes. `dense` is the dense model of the user's choice, if it
    is not to be trained.

    Raises:
        UserError: naming the key, the value and the cure.
    """
    made = assembly.parts(config)
    _check_seed(config)
    data: TaskData = made.task.load()
    source = assembly.student(made, dense)
    blueprint = source.blueprint(None if dense else data.labels)
    if dense and blueprint.config.num_labels != data.labels.count:
        raise UserError(
            f"dense.source={dense}: has {blueprint.config.num_labels} labels and task {made.task.name} "
            f"{data.labels.count}; give a model fine-tuned on this task"
        )
    tokenizer = source.tokenizer()
    check_tokenizer(tokenizer, data, blueprint.config, made.task.max_length)
    per_epoch = made.settings.steps_per_epoch(len(data.train))
    steps = made.settings.epochs * per_epoch
    assembly.pruners(made.plans, blueprint, steps, per_epoch)
    _check_optimizer(config, steps, per_epoch)
    _check_teacher(made, blueprint.config, tokenizer, data)
    assembly.make(config, "tracker")
    return made


def _check_seed(config: DictConfig) -> None:
    if isinstance(config.seed, bool) or not isinstance(config.seed, int) or config.seed < 0:
        raise UserError(f"seed={config.seed}: must be a whole number of at least 0")
    threads = config.runtime.threads
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise UserError(f"runtime.threads={threads}: must be a whole number of at least 1, or null for torch's choice")


def _check_optimizer(config: DictConfig, steps: int, steps_per_epoch: int) -> None:
    # On a stand-in parameter: torch's optimizers check their numbers when they are made.
    try:
        key = "optimizer"
        optimizer = assembly.make(config, key)([{"params": [nn.Parameter(torch.zeros(1))]}])
        key = "lr_scheduler"
        assembly.make(config, key, steps=steps, steps_per_epoch=steps_per_epoch)(optimizer)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{key}: {error}") from None


def _check_teacher(made: Parts, student: Any, tokenizer: Any, data: TaskData) -> None:
    if not made.distiller.needs_teacher:
        return
    path = made.distiller.teacher
    if path is None and not made.plans.parts:
        raise UserError("distill.teacher=null: a dense run starts from no dense model; name a teacher, or distill=none")
    if path is None:
        if why := made.distiller.misfit(student, student):
            raise UserError(f"distill: {why}")
        return
    teacher = assembly.pretrained(path, "distill.teacher")
    config, other = teacher.config(), teacher.tokenizer()
    if why := made.distiller.misfit(student, config):
        raise UserError(f"distill.teacher={path}: {why}")
    if other.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"distill.teacher={path}: its tokenizer differs from the student's, so the two would read different "
            f"tokens; give a teacher with the same vocabulary"
        )
    if len(data.train.texts[0]) > 1 and set(other.model_input_names) - set(tokenizer.model_input_names):
        raise UserError(
            f"distill.teacher={path}: tells the two texts of an example apart by token types, which the student's "
            f"tokenizer does not make; give a teacher of the student's family"
        )
    positions = getattr(config, "max_position_embeddings", made.task.max_length)
    if positions < made.task.max_length:
        raise UserError(f"distill.teacher={path}: has {positions} positions, fewer than task.max_length")
