"""Words of other tools: every suggestion is a key or choice that exists, and each is made for what is typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compose_helpers import composing

from hydraprune.config.command_words import arranged
from hydraprune.config.composition import conf_dir, plain
from hydraprune.config.schema import flattened
from hydraprune.config.spellings import _CHOICES, _KEYS, our_choice, our_key
from hydraprune.errors import UserError

# What keys need beside them, to be there.
_BESIDE = {
    "pattern.keep": ["pattern=nm"],
    "tracker.": ["tracker=wandb"],
    "model.path": ["model=bert_mini"],
    "lr_scheduler.warmup": ["lr_scheduler=linear"],
    "task.text": ["task=file", "task.path=x"],
    "task.label": ["task=file", "task.path=x"],
    "task.path": ["task=file", "task.path=x"],
    "task.validation_path": ["task=file", "task.path=x"],
    "distill.temperature": ["distill=logits"],
}


@pytest.mark.parametrize("ours", sorted(set(_KEYS.values())))
def test_every_suggested_key_is_there(ours: str, workplace: Path) -> None:
    if ours.startswith("hydra."):
        return
    key, equals, _ = ours.partition("=")
    words = [word for start, beside in _BESIDE.items() if key.startswith(start) for word in beside]
    with composing() as compose:
        known = flattened(plain(compose(*words, *([ours] if equals else []))))
    assert key in known or (conf_dir() / key).is_dir()


@pytest.mark.parametrize("group", sorted(_CHOICES))
def test_every_suggested_choice_is_there(group: str) -> None:
    files = {path.stem for path in (conf_dir() / group).glob("*.yaml")}
    assert {choice.split(" ")[0] for choice in _CHOICES[group].values()} <= files
    for word, choice in _CHOICES[group].items():
        assert our_choice(group, word, files) == choice


@pytest.mark.parametrize("group", sorted(path.name for path in conf_dir().iterdir() if path.is_dir()))
def test_other_capitals_and_signs_mean_the_same_choice(group: str) -> None:
    files = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    for name in files:
        for typed in (name.upper(), name.replace("_", "-"), name.title().replace("_", " ")):
            meant = our_choice(group, typed, files)
            assert meant == name or typed.lower() in _CHOICES.get(group, {})


@pytest.mark.parametrize("word", sorted(_KEYS))
def test_a_flag_of_another_tool_is_answered_with_our_key(word: str) -> None:
    for typed in (f"--{word}=1", f"--{word.replace('_', '-')}"):
        with pytest.raises(UserError) as refused:
            arranged(["model=tiny", typed])
        assert our_key(word) == _KEYS[word] or _KEYS[word] == word
        assert _KEYS[word].partition("=")[0] in str(refused.value)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["a=1", "-m", "b=2"], ["-m", "a=1", "b=2"]),
        (["a=1", "--cfg", "job", "b=2"], ["--cfg", "job", "a=1", "b=2"]),
        (["a=1", "--config-dir=x", "b=2", "--multirun"], ["--config-dir=x", "--multirun", "a=1", "b=2"]),
        (["a=1", "--config-dir", "x"], ["--config-dir", "x", "a=1"]),
        (["a=1", "--info", "searchpath", "b=2"], ["--info", "searchpath", "a=1", "b=2"]),
        (["a=1", "--info", "b=2"], ["--info", "a=1", "b=2"]),
        (["~a", "+b=1", "a=-1", "--", "-c"], ["~a", "+b=1", "a=-1", "-c"]),
    ],
)
def test_flags_may_stand_anywhere(typed: list[str], read: list[str]) -> None:
    assert arranged(typed) == read


CASES: dict[str, tuple[str, ...]] = {
    # typed -> parts of the answer
    "--pattern 4x1": ("--pattern 4x1", "pattern=4x1"),
    "--seed=3": ("seed=3",),
    "--learning-rate 1e-3": ("optimizer.lr=1e-3",),
    "\N{EM DASH}seed 3": ("seed=3",),
    "\N{EN DASH}multirun": ("type --multirun",),
    "--resume": ("the same command resumes",),
    "model=bert-base-uncased": ("model.path=bert-base-uncased", "model=bert_base"),
    "model=org/name": ("model=org/name: there is no such model", "model.path=org/name"),
    "training.lr=1e-3": ("optimizer.lr=1e-3",),
    "+training.lr=1e-3": ("optimizer.lr",),
    "learning_rate=1e-3": ("optimizer.lr=1e-3",),
    "sparsity=0.9": ("pattern.target_sparsity=0.9",),
    "pattern.ratio=0.9": ("pattern.target_sparsity=0.9",),
    "wandb=true": ("tracker=wandb",),
    "fp16=true": ("training.precision=fp16",),
    "pattern.n=2": ("pattern=nm pattern.keep=2 pattern.of=4",),
    "task=SST-2": ("did you mean task=sst2?",),
    "task=glue/sst2": ("did you mean task=sst2?",),
    "task=train.csv": ("task=file task.path=train.csv",),
    "pattern=8x1": ("pattern=block pattern.rows=8 pattern.cols=1",),
    "pattern=1:8": ("pattern=nm pattern.keep=1 pattern.of=8",),
    "Seed=3": ("did you mean seed?",),
    "seed:3": ("write it as seed=3",),
    "plan=no": ("plan=no: must be true or false",),
    "plan=1": ("plan=1: must be true or false",),
    "seed=0,1": ("several values are a sweep", "add -m"),
    "sweep=mine": ("add -m",),
    "hydra/launcher=joblib": ("add -m",),
    "hydra.sweep.dir=x": ("add -m",),
    "experiment=null": ("leave it out",),
    "matrix=null": ("leave it out",),
    "hydra/launcher=null": ("leave it out",),
    "-m matrix=glob(nope*)": ("matrix=glob(nope*): matches nothing", "bert_mini_mrpc_4x1"),
    "-m seed=range(3,3)": ("seed=range(3,3): matches nothing",),
}


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("typed", CASES)
def test_what_is_typed_by_habit_is_answered_in_one_line(typed: str, train: Callable[..., Any], workplace: Path) -> None:
    finished = train("model=tiny", "task=toy", *typed.split(" "))
    assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
    assert finished.out == ""
    for part in CASES[typed]:
        assert part in finished.err
    assert list(workplace.iterdir()) == []


def test_a_flag_between_other_words(train: Callable[..., Any]) -> None:
    finished = train("model=tiny", "-m", "task=toy", "seed=0,1", "plan=true")
    assert finished.code == 0, finished.err
    assert "2 jobs" in finished.out
