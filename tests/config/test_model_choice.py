"""Names of models: a path alone names its model, and takes no recipe and no published row of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compose_helpers import composing
from family_helpers import save_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from hydraprune.config.composition import conf_dir, resolved
from hydraprune.config.model_choice import model_name, with_model_choice
from hydraprune.errors import UserError
from hydraprune.results.reference import PUBLISHED
from hydraprune.runs.experiment import build_experiment

CHOICES = {file.stem for file in (conf_dir() / "model").glob("*.yaml")}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/roberta-base", "roberta-base"),
        ("FacebookAI/roberta-base", "roberta-base"),
        ("./mine/", "mine"),
        ("outputs/seed0-abc/model", "seed0-abc-model"),
        ("runs/mine/checkpoint-500", "mine-checkpoint-500"),
        ("hub/models--org--some-bert/snapshots/" + "0123456789" * 4, "some-bert"),
        ("C:\\models\\mine", "mine"),
        ("/models/bert_mini", "bert_mini-checkpoint"),
        (".", "model"),
    ],
)
def test_a_checkpoint_is_named_by_its_path(path: str, name: str) -> None:
    assert model_name(path) == name


@given(st.text(alphabet="ab/._-\\~123", max_size=30) | st.sampled_from(sorted(CHOICES)))
def test_no_path_gives_the_name_of_another_model(path: str) -> None:
    assert model_name(path)
    assert model_name(path) not in CHOICES | {row.model for row in PUBLISHED}


PATH = "model.path=/models/mine"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([PATH, "task=mrpc"], ["model=checkpoint", PATH, "task=mrpc"]),
        (["-m", "+model.path=a,b", "seed=0,1"], ["-m", "model=checkpoint", "+model.path=a,b", "seed=0,1"]),
        (["model.name=x", PATH], ["model.name=x", "model=checkpoint", PATH]),
        *(([word, PATH], [word, PATH]) for word in ("model=bert_mini", "matrix=glob(*)", "experiment=mine")),
        (["task.path=/x"], ["task.path=/x"]),
        (["dense.source=/x"], ["model=checkpoint", "model.path=${dense.source}", "dense.source=/x"]),
        (["dense.source=/x", PATH], ["dense.source=/x", "model=checkpoint", PATH]),
        (["dense.source=auto"], ["dense.source=auto"]),
        (["model=tiny", "dense.source=/x"], ["model=tiny", "dense.source=/x"]),
    ],
)
def test_a_path_without_a_model_chooses_a_checkpoint(words: list[str], expected: list[str]) -> None:
    assert with_model_choice(words) == expected


def test_a_checkpoint_has_no_recipe_of_another_model() -> None:
    with composing() as compose:
        config = resolved(compose(*with_model_choice(["model.path=/models/roberta-base", "task=mrpc"])))
        assert config["model"]["name"] == "roberta-base"
        assert config["recipe"]["source"] == "none"
        asked = resolved(compose(*with_model_choice(["model=bert_mini", "model.path=/models/mine", "task=mrpc"])))
        assert (asked["model"]["name"], asked["recipe"]["source"]) == ("bert_mini", "published")
        named = resolved(compose(*with_model_choice(["model.path=/models/mine", "model.name=ours"])))
        assert named["model"]["name"] == "ours"


def test_a_dense_model_alone_names_the_run() -> None:
    with composing() as compose:
        config = resolved(compose(*with_model_choice(["dense.source=/models/ours", "task=mrpc"])))
        assert (config["model"]["name"], config["model"]["path"]) == ("ours", "/models/ours")
        assert config["recipe"]["source"] == "none"


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_a_checkpoint_may_not_take_the_name_of_a_choice(name: str) -> None:
    with composing() as compose, pytest.raises(UserError, match=f"model.name={name}: is the name of"):
        build_experiment(compose(*with_model_choice(["model.path=/models/ours", f"model.name={name}"])))


def test_two_checkpoints_have_two_folders_and_no_published_row(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = [word for word in small if not word.startswith(("model=", "scheduler.", "dense."))]
    for kind in ("roberta", "albert"):
        save_checkpoint(workplace / "zoo" / kind, kind)
        finished = train(f"model.path=zoo/{kind}", *words, "pattern=dense", "training.epochs=1", "plan=true")
        assert finished.code == 0, finished.err
        assert f"outputs/toy/{kind}/dense/" in finished.out
