"""What can be refused before anything is trained or written? All that a config, data and shapes can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from hydraprune.config import instantiate as assembly
from hydraprune.config.identity import escapes
from hydraprune.config.instantiate import Parts, as_user_error
from hydraprune.data.encoding import check_tokenizer, estimated_tokens, positions_of
from hydraprune.data.examples import Examples, TaskData
from hydraprune.data.splits import check_splits
from hydraprune.data.tasks import check_metrics
from hydraprune.errors import UserError
from hydraprune.models.families import is_known
from hydraprune.runs.setup import check_head, load
from hydraprune.sparsity import SparsityError
from hydraprune.utils.cache import cache_of
from hydraprune.utils.files import check_place

MOST_THREADS = 1024
# Two numbers of four bytes a token: its id and its type.
_TOKEN_BYTES = 8


@dataclass(frozen=True)
class Needs:
    """What a run will take.

    Args:
        steps: optimizer steps.
        model_bytes: of the saved model.
        answer_bytes: of its teacher's kept answers, estimated from some of the examples; 0 when none are kept.
        token_bytes: of its task's kept tokens, estimated likewise.
    """

    steps: int
    model_bytes: int
    answer_bytes: int
    token_bytes: int


def check(config: DictConfig, dense: str | None) -> Needs:
    """Find whatever can be found wrong with a run before anything is trained or written.

    Reads the data and the model's shapes. `dense` is the dense model of the user's choice, if it
    is not to be trained.

    Returns:
        What the run will take.

    Raises:
        UserError: naming the key, the value and the cure.
    """
    check_numbers(config)
    check_cache(config)
    assembly.make(config, "tracker")
    made = assembly.parts(config)
    if made.settings.epochs == 0 and not made.plans.parts:
        raise UserError("training.epochs=0: a dense run neither trains nor prunes then; give at least 1")
    if dense is None and any(plan.criterion and plan.criterion.needs_zeros for plan in made.plans.parts.values()):
        raise UserError(
            f"pattern=lock: dense.source={config.dense.source} trains a model without zeros to keep; name a "
            f"sparse one: dense.source=<folder or hub id>"
        )
    data = load(made.task)
    check_metrics(made.task.metrics, data.labels)
    check_splits(data, made.task.metrics)
    source = assembly.student(made, dense)
    where = f"dense.source={dense}" if dense else f"model={made.model.name}"
    if dense:
        check_head(source.config(), data.labels, where, made.task.name)
    blueprint = source.blueprint(None if dense else data.labels)
    tokenizer = source.tokenizer()
    check_tokenizer(where, tokenizer, data, blueprint.config, made.task.max_length)
    per_epoch = made.settings.steps_per_epoch(len(data.train))
    steps = made.settings.epochs * per_epoch
    assembly.pruners(made.plans, blueprint, steps, per_epoch)
    if dense or not made.plans.parts:
        # Whole? A weight that is missing would be random.
        _check_start(made, source.load(None if dense else data.labels), steps, per_epoch)
    _check_optimizer(config, steps, per_epoch)
    _check_teacher(made, blueprint.config, tokenizer, data)
    model_bytes = sum(weight.numel() * weight.element_size() for weight in blueprint.parameters())
    return Needs(steps, model_bytes, *_kept(config, made, blueprint.config, tokenizer, data))


def _check_start(made: Parts, model: nn.Module, steps: int, per_epoch: int) -> None:
    """Refuse a model whose zeros are not what the pruners can start from."""
    for pruner in assembly.pruners(made.plans, model, steps, per_epoch):
        try:
            pruner.begin()
        except SparsityError as error:
            raise assembly.in_config_words(error.of(pruner.name), made.plans) from None


def _kept(config: DictConfig, made: Parts, model: Any, tokenizer: Any, data: TaskData) -> tuple[int, int]:
    """Bytes of answers and of tokens that the cache will be asked to keep."""
    cache, distiller = cache_of(config.cache), made.distiller

    def tokens(examples: Examples) -> int:
        return estimated_tokens(tokenizer, examples, made.task.max_length)

    answers = 0
    if distiller.needs_teacher and distiller.storable and not distiller.online and made.settings.epochs:
        rows, width = (
            (tokens(data.train), model.hidden_size) if distiller.per_token else (len(data.train), data.labels.count)
        )
        answers = rows * width * 4
    kept = sum(tokens(examples) for examples in (data.train, *data.evaluations.values())) * _TOKEN_BYTES
    return answers if cache.admits(answers) else 0, kept if cache.admits(kept) else 0


def check_sweep(name: object) -> None:
    """Refuse a sweep whose folder would not be below multirun_sweeps/.

    Raises:
        UserError: naming what a name may be.
    """
    if not isinstance(name, (str, int)) or isinstance(name, bool) or escapes(str(name)):
        raise UserError(
            f"sweep={str(name)[:80]!r}: must be a name, for a folder below multirun_sweeps/; hydra.sweep.dir=FOLDER is "
            f"for any other place"
        )


def check_numbers(config: DictConfig) -> None:
    """Refuse a seed, a number of threads or a switch that cannot be.

    Raises:
        UserError: naming the range.
    """
    if not 0 <= config.seed < 2**32:
        raise UserError(f"seed={config.seed}: must be at least 0 and below 2^32")
    threads = config.runtime.threads
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UserError(f"runtime.threads={threads}: must be at least 1 and at most {MOST_THREADS}, or null")
    if not isinstance(config.runtime.compiled, bool):
        raise UserError(f"runtime.compiled={config.runtime.compiled}: must be true or false")


def check_cache(config: DictConfig) -> None:
    """Refuse a cache that cannot be.

    Raises:
        UserError: naming the range, or the folder that cannot be written.
    """
    cache = cache_of(config.cache)
    if cache.max_gb > 0:
        check_place(cache.folder, "cache.dir")


def _check_optimizer(config: DictConfig, steps: int, steps_per_epoch: int) -> None:
    # On a stand-in parameter: torch's optimizers check their numbers when they are made.
    try:
        key = "optimizer"
        optimizer = _maker(config, key)([{"params": [nn.Parameter(torch.zeros(1))]}])
        key = "lr_scheduler"
        _maker(config, key, steps=steps, steps_per_epoch=steps_per_epoch)(optimizer)
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        raise as_user_error(error, key) from None


def _maker(config: DictConfig, key: str, **arguments: int) -> Any:
    """What makes the object at `key` once it is given the parameters, or the optimizer."""
    hint = f"{key}._partial_: must be true, since the rest is given when the model is there"
    try:
        made = assembly.make(config, key, **arguments)
    except UserError as error:
        raise (error if config[key].get("_partial_") else UserError(f"{hint} ({error})")) from None
    if not callable(made):
        raise UserError(hint)
    return made


def _check_teacher(made: Parts, student: Any, tokenizer: Any, data: TaskData) -> None:
    distiller = made.distiller
    if not distiller.needs_teacher:
        return
    path = distiller.teacher
    if not made.plans.parts:
        if distiller.keeps_head:
            raise UserError("distill=hidden: trains no head, and a dense run needs one; use distill=logits or none")
        if path is None:
            raise UserError("distill.teacher=null: a dense run starts from no dense model; name a teacher")
    if path is None:
        if why := distiller.misfit(student, student):
            raise UserError(f"distill: {why}")
        return
    where = f"distill.teacher={path}"
    teacher = assembly.pretrained(path, "distill.teacher")
    config, other = teacher.config(), teacher.tokenizer()
    if why := distiller.misfit(student, config):
        raise UserError(f"{where}: {why}")
    check_head(config, data.labels, where, made.task.name)
    if other.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"{where}: its tokenizer differs from the student's, so the two would read different tokens; give a "
            f"teacher with the same vocabulary"
        )
    if len(data.train.texts[0]) > 1 and set(other.model_input_names) - set(tokenizer.model_input_names):
        raise UserError(
            f"{where}: tells the two texts of an example apart by token types, which the student's tokenizer does "
            f"not make; give a teacher of the student's family"
        )
    if positions_of(config) < made.task.max_length:
        raise UserError(f"{where}: has {positions_of(config)} positions, fewer than task.max_length")
    if distiller.keeps_head and not is_known(config.model_type):
        raise UserError(
            f"{where}: we do not know which layers of a {config.model_type} are its head; use distill=logits"
        )
    teacher.load()
