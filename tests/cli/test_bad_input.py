"""User errors on the command line: one line with key, value and cure, exit code 2, and no folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # overrides -> parts of the message
    "unknown pattern": (("pattern=4y1",), ("pattern=4y1", "choose from", "4x1", "pattern=block", "pattern=nm")),
    "unknown task": (("task=sst3",), ("task=sst3", "sst2")),
    "unknown model": (("model=bert_micro",), ("model=bert_micro", "bert_mini")),
    "rows 0": (("pattern.rows=0",), ("pattern.rows=0", "positive")),
    "rows a word": (("pattern.rows=four",), ("pattern.rows=four", "channel")),
    "keep above of": (("pattern=nm", "pattern.keep=4"), ("pattern.keep=4", "of=4")),
    "misfit": (("pattern=block", "pattern.rows=7"), ("7x1", "query.weight (64, 64)", "pattern.layers.exclude")),
    "misfit nm": (("pattern=nm", "pattern.of=7"), ("1:7", "64 columns", "pattern.layers.exclude")),
    "target 1": (("pattern.target_sparsity=1.0",), ("pattern.target_sparsity=1.0", "below 1")),
    "target negative": (("pattern.target_sparsity=-0.1",), ("pattern.target_sparsity=-0.1", "at least 0")),
    "target a word": (("pattern.target_sparsity=most",), ("pattern.target_sparsity=most", "number")),
    "target above N:M": (("pattern=2:4", "pattern.target_sparsity=0.6"), ("target_sparsity=0.6", "at most 0.5")),
    "target above cap": (("pattern.target_sparsity=0.99",), ("pattern.target_sparsity=0.99", "cap=0.98", "raise cap")),
    "floor above cap": (("pattern.floor=0.99",), ("pattern.floor=0.99", "cap=0.98")),
    "floor above target": (("pattern.floor=0.95",), ("pattern.floor=0.95", "target_sparsity=0.9")),
    "scope": (("pattern.scope=everywhere",), ("pattern.scope=everywhere", "global, local, erk or weights")),
    "reduce": (("pattern.reduce=median",), ("pattern.reduce=median", "mean, sum or max")),
    "frequency 0": (("scheduler.frequency=0",), ("scheduler.frequency=0", "at least 1")),
    "frequency a word": (("scheduler.frequency=often",), ("scheduler.frequency=often", "1ep")),
    "warm-up too long": (("scheduler.warmup=999",), ("scheduler.warmup=999", "training's 30", "shorten")),
    "warm-up in epochs": (("scheduler.warmup=4ep",), ("scheduler.warmup=4ep", "training's 30")),
    "one-shot before gradients": (("scheduler=oneshot", "scheduler.warmup=0"), ("scheduler.warmup=0", "at least 1")),
    "mistyped key": (("pattern.target_sparsty=0.5",), ("pattern.target_sparsty=0.5", "pattern.target_sparsity")),
    "mistyped key with +": (("+pattern.target_sparsty=0.5",), ("pattern.target_sparsty", "pattern.target_sparsity")),
    "mistyped group": (("patern=2:4",), ("patern=2:4", "pattern")),
    "mistyped group with +": (("+patern=4x1",), ("patern=4x1", "pattern")),
    "mistyped node": (("trainin.epochs=2",), ("trainin.epochs=2", "training.epochs")),
    "mistyped plain key with +": (("+runtime.thread=2",), ("runtime.thread=2", "runtime.threads")),
    "epochs -1": (("training.epochs=-1",), ("training.epochs=-1", "at least 0")),
    "epochs 0 with a schedule": (("training.epochs=0",), ("scheduler.warmup=5", "no steps", "at_start")),
    "epochs 0 of a dense run": (("dense.overrides=['training.epochs=0']",), ("training.epochs=0", "dense run")),
    "wanda by a schedule": (("pruner=wanda", "scheduler=exp"), ("pruner=wanda", "prunes once", "at_start")),
    "retrain_free on blocks": (("pruner=retrain_free",), ("pruner=retrain_free", "4x1", "1xchannel")),
    "batch a word": (("training.batch_size=big",), ("training.batch_size=big", "whole number")),
    "checkpoints": (("training.checkpoint_every=often",), ("training.checkpoint_every=often", "1ep")),
    "precision": (("training.precision=int3",), ("training.precision=int3", "bf16")),
    "cuda": (("training.device=cuda",), ("training.device=cuda", "no CUDA")),
    "learning rate": (("optimizer.lr=-1",), ("optimizer", "-1")),
    "distill weight 0": (("distill.weight=0",), ("distill.weight=0", "distill=none")),
    "temperature": (("distill=logits", "distill.temperature=0"), ("distill.temperature=0", "above 0")),
    "endless temperature": (("distill=logits", "distill.temperature=inf"), ("distill.temperature=inf", "number")),
    "seed": (("seed=abc",), ("seed=abc", "whole number")),
    "threads": (("runtime.threads=0",), ("runtime.threads=0", "at least 1")),
    "role": (("pattern.layers.roles=[neck]",), ("pattern.layers.roles=neck", "query")),
    "include nothing": (("pattern.layers.include=[xyz]",), ("pattern.layers.include=xyz", "matches no")),
    "exclude nothing": (("pattern.layers.exclude=[xyz]",), ("pattern.layers.exclude=xyz", "matches no")),
    "broken expression": (("'pattern.layers.include=[\"(\"]'",), ("pattern.layers.include=(", "regular expression")),
    "module type": (("pattern.layers.types=[Embedding]",), ("types=Embedding", "Linear")),
    "claimed twice": (
        ("pattern=mixed", "pattern.parts.ffn.layers.roles=[ffn,query]"),
        ("query.weight", "ffn", "attention", "exclude"),
    ),
    "phase against pattern": (("phase=dense",), ("phase=dense", "pattern=dense")),
    "no pruner": (("pruner=none",), ("pruner=none", "pattern=dense")),
    "max_length": (("task.max_length=2",), ("task.max_length=2", "at least 3")),
    "max_length above positions": (("task.max_length=999",), ("task.max_length=999", "128 positions")),
    "no examples": (("task.train_examples=0",), ("task.train_examples=0", "at least 1")),
    "no subset": (("task.max_train_examples=0",), ("task.max_train_examples=0", "at least 1")),
    "hub unreachable": (("model=bert_mini",), ("model.path=prajjwal1/bert-mini", "HF_HUB_OFFLINE", "local folder")),
    "data unreachable": (("task=sst2",), ("task.path=nyu-mll/glue", "local folder")),
    "no such folder": (("model=bert_mini", "model.path=/no/such"), ("model.path=/no/such", "no such")),
    "no such data": (("task=sst2", "task.path=./no/such"), ("task.path=./no/such", "no such")),
    "no such dense": (("dense.source=/no/such",), ("dense.source=/no/such", "no such")),
    "no such teacher": (("distill.teacher=/no/such",), ("distill.teacher=/no/such", "no such")),
    "foreign target": (("pruner._target_=os.system",), ("pruner._target_=os.system", "HYDRAPRUNE_TARGETS")),
    "mistyped target": (("pruner._target_=hydraprune.sparsity.Snap",), ("hydraprune.sparsity.Snap", "no such")),
    "a group of nothing": (("distill=null",), ("distill=null", "none")),
    "a node of nothing": (("runtime=null",), ("runtime=null", "group of keys")),
    "a node taken away": (("~distill",), ("distill=null", "group of keys")),
    "a path of nothing": (("model=bert_mini", "model.path=null"), ("model.path=null", "must be text")),
    "a number for text": (("run.root=5",), ("run.root=5", "must be text")),
    "true for a number": (("runtime.threads=true",), ("runtime.threads=true", "whole number")),
    "a fraction for a count": (("task.max_length=64.5",), ("task.max_length=64.5", "whole number")),
    "a list for text": (("dense.source=[a]",), ("dense.source=['a']", "must be text")),
    "a word for a rate": (("optimizer.lr=high",), ("optimizer.lr=high", "number")),
    "a whole optimizer": (("optimizer._partial_=false",), ("optimizer._partial_", "must be true", "params")),
    "a whole rate": (("~lr_scheduler._partial_",), ("lr_scheduler._partial_", "must be true")),
    "an optimizer without its parameters": (
        ("optimizer=sgd", "~optimizer._partial_", "+optimizer.params=[]"),
        ("optimizer._partial_", "empty parameter list"),
    ),
    "one beta": (("optimizer.betas=[0.9]",), ("optimizer.betas=[0.9]", "list of 2")),
    "a large seed": (("seed=5000000000",), ("seed=5000000000", "2^32")),
    "many threads": (("runtime.threads=100000",), ("runtime.threads=100000", "at most")),
    "an infinite weight": (("distill.weight=inf",), ("distill.weight=inf", "above 0")),
    "no layers": (("model.layers=0",), ("model.layers=0", "at least 1")),
    "warm-up of the rate": (("lr_scheduler.warmup=99ep",), ("lr_scheduler.warmup=99ep", "longer than")),
    "mistyped key of a part": (
        ("pattern=mixed", "++pattern.parts.ffn.scheduler.frequncy=3"),
        ("pattern.parts.ffn.scheduler.frequncy=3", "pattern.parts.ffn.scheduler.frequency"),
    ),
    "a part of nothing": (("pattern=mixed", "pattern.parts.ffn=null"), ("pattern.parts.ffn=null", "leaves it out")),
    "a list of groups": (("pruner=[1]",), ("pruner=[1]", "needs the name of a file")),
    "a target of nothing": (("tracker._target_=null",), ("tracker._target_=null", "class")),
    "a recipe of a list": (("recipe.source=[1]",), ("recipe.source=[1]", "must be text")),
    "no initial weights": (("model.initializer_range=0",), ("model.initializer_range=0", "above 0")),
    "the home of an unknown user": (('dense.source="~nobody-at-all/x"',), ("dense.source=~nobody-at-all/x", "no such")),
    "a file of an unknown user": (
        ('task.path="~nobody-at-all/x.csv"', "task=file"),
        ("task.path=~nobody-at-all/x.csv", "no such"),
    ),
    "a group that is no number": (("recipe=nan",), ("recipe=nan", "needs the name of a file")),
    "a phase of keys": (("+phase.more={}",), ("phase=", "leave it out")),
    "no phase": (("~phase",), ("~phase", "choose the recipe")),
    "a phase by another key": (("phase=${seed}",), ("phase=${seed}", "choose the recipe")),
    "a name too long": ((f"dense.source=/{'x' * 300}",), ("dense.source=", "no such")),
    "a place too long": ((f"run.root={'x' * 300}",), ("run.root", "cannot write")),
    "no parts": (("pattern=mixed", "pattern.parts=5"), ("pattern.parts=5", "group of keys")),
    "a sparse dense run": (("dense.overrides=['pattern=4x1']",), ("dense.overrides", "pattern", "override training")),
    "a dense run of another seed": (("dense.overrides=['seed=5']",), ("dense.overrides", "seed")),
    "a place that is a file": (("run.root=/dev/null/x",), ("/dev/null", "cannot write")),
    "file without path": (("task=file",), ("task.path", "value is needed")),
    "dense override mistyped": (("dense.overrides=['training.epoch=1']",), ("dense.overrides", "training.epochs")),
}


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("name", CASES)
def test_a_user_error_is_one_line_and_makes_no_folder(
    name: str, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    typed, message_parts = CASES[name]
    words = [word for word in small if not _overridden(word, typed)]
    finished = train(*words, *(word.strip("'") for word in typed))
    assert finished.code == 2, finished.err
    assert finished.out == ""
    lines = [line for line in finished.err.splitlines() if line.strip()]
    assert len(lines) == 1, finished.err
    assert lines[0].startswith("hydraprune: error: ")
    for part in message_parts:
        assert part in lines[0]
    assert list(workplace.iterdir()) == []


def _overridden(word: str, typed: tuple[str, ...]) -> bool:
    """Whether a word of `small` is for a task, model or scheduler that is not chosen."""
    groups = {t.split("=")[0].lstrip("+") for t in typed if "." not in t.split("=")[0]}
    group = word.split("=")[0].split(".")[0]
    if "phase=dense" in typed and word.startswith("dense."):
        return True
    if group == "task" and "task" in groups:
        return True
    return group in groups and "=" in word and "." not in word.split("=")[0]
