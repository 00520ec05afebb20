"""Objects from plain values: what a target gets, and texts with an interpolation in them, which stay texts."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from compose_helpers import composing
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from hydraprune.config.composition import literal, plain, resolved
from hydraprune.config.construction import construct
from hydraprune.config.dense import dense_config
from hydraprune.config.instantiate import make
from hydraprune.errors import UserError
from hydraprune.runs.experiment import build_experiment
from hydraprune.runs.preflight import check_numbers
from hydraprune.utils.cache import cache_of

# A module that no config may name: it only counts its calls.
COUNTER = "CALLS = []\ndef count(*given, **named):\n    CALLS.append((given, named))\n    return 'called'\n"
# Texts that would become a node with a target if they were resolved once more.
LIVE = (
    "${oc.create:{_target_:called_here.count}}",
    '${oc.decode:"{_target_: called_here.count, x: 1}"}',
    "[${oc.create:{_target_:called_here.count}}]",
    "${oc.create:[{_target_:called_here.count}]}",
    "${oc.env:LIVE_TEXT}",
)
CHOICES = (
    ("model=tiny", "task=toy", "pattern=4x1"),
    ("model=bert_mini", "task=file", "task.path=a.csv", "pattern=mixed", "tracker=wandb"),
    ("model=bert_mini", "task=sst2", "pattern=2of4", "distill=hidden", "scheduler=threshold"),
    ("model=tiny", "task=toy", "pattern=dense"),
)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The calls of a target that is not allowed."""
    (tmp_path / "called_here.py").write_text(COUNTER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LIVE_TEXT", "${oc.create:{_target_:called_here.count}}")
    import called_here  # type: ignore[import-not-found]

    yield called_here.CALLS
    del sys.modules["called_here"]


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values that are neither dicts nor lists, and of all lists."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    else:
        yield path
        for place, value in enumerate(node if isinstance(node, list) else ()):
            yield from leaves(value, (*path, place))


def with_value(config: Mapping[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy of a config with one value replaced."""
    changed: Any = copy.deepcopy(config)
    node = changed
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return changed  # type: ignore[no-any-return]


def make_everything(config: DictConfig) -> None:
    """Make all that a run makes of its config before data or a model is loaded."""
    experiment = build_experiment(config)
    for one in (experiment, experiment.dense):
        if one is not None:
            components = one.components
            check_numbers(one)
            for made in ("plans", "settings", "distiller", "model", "task"):
                getattr(components, made)
            cache_of(one.config["cache"])
            for key in ("tracker", "optimizer"):
                make(one.config, key)
            make(one.config, "lr_scheduler", steps=10, steps_per_epoch=5)


def test_no_text_of_a_config_comes_to_life(calls: list[Any]) -> None:
    """Every value of a config, one at a time, is a text that holds an interpolation after the first resolution."""
    tried: set[tuple[Any, ...]] = set()
    with composing() as compose:
        for words in CHOICES:
            composed = compose(*words)
            own = plain(composed)
            for path in [path for path in leaves(own) if path not in tried]:
                escaped = literal(LIVE[len(tried) % 4])
                given = (escaped, LIVE[-1], {"inside": [escaped]})[len(tried) % 3]
                tried.add(path)
                with suppress(UserError):
                    make_everything(OmegaConf.create({**with_value(own, path, given), "hydra": composed.hydra}))
    assert len(tried) > 120
    assert calls == []


@pytest.mark.parametrize("text", LIVE)
def test_a_literal_reaches_its_target_as_it_is(text: str, calls: list[Any]) -> None:
    with composing() as compose:
        values = resolved(compose(*CHOICES[0], "tracker=wandb"))
        assert make(values, "model", {**values["model"], "name": text}).name == text
        # Keys too, and what the dense run takes from the sparse one.
        assert construct({"a": {text: [text]}}, "x") == {"a": {text: [text]}}
        values["tracker"]["project"] = text
        dense, _ = dense_config(values, {"model": "tiny", "task": "toy"}, lambda words: compose(*words))
        assert dense["tracker"] == values["tracker"]
    assert calls == []


@given(st.text(alphabet="\\${}a.:,'\" ", max_size=14))
def test_a_literal_is_resolved_to_itself(text: str) -> None:
    config = OmegaConf.create({"text": literal(text), "list": literal([{"text": text}])})
    assert OmegaConf.to_container(config, resolve=True) == {"text": text, "list": [{"text": text}]}


def test_nodes_are_made_as_hydra_makes_them() -> None:
    node = {
        "_target_": "torch.optim.SGD",
        "_partial_": True,
        "_convert_": "all",
        "lr": 0.5,
        "momentum": 0.1,
        "more": [{"_target_": "hydraprune.sparsity.Exp"}, {"plain": {"_target_": "hydraprune.sparsity.Exp"}}],
    }
    made = construct(node, "optimizer", lr=1.5)
    assert isinstance(made, functools.partial)
    assert made.func.__name__ == "SGD"
    assert made.keywords["lr"] == 1.5
    assert type(made.keywords["more"][1]["plain"]).__name__ == "Exp"
    unmade = construct({**node, "_recursive_": False}, "optimizer")
    assert unmade.keywords["more"][1] == node["more"][1]  # type: ignore[index]
    assert construct(None, "tracker") is None


def test_errors_have_the_key_of_the_node() -> None:
    inner = {"_target_": "hydraprune.sparsity.Exp", "no_such": 1}
    with pytest.raises(UserError, match=r"^tracker\.tags\[1\]\.at: .*no_such"):
        construct({"_target_": "hydraprune.tracking.WandB", "tags": [1, {"at": inner}]}, "tracker")
    for key, value, reason in (
        ("_partial_", "yes", "must be true or false"),
        ("_recursive_", 1, "must be true or false"),
        ("_args_", "ab", "must be a list"),
        ("_target_", None, "must be the name of a class"),
    ):
        with pytest.raises(UserError, match=rf"^x\.y\.{key}=.*{reason}"):
            construct({"y": {"_target_": "hydraprune.sparsity.Exp", key: value}}, "x")


SHORT = ("pattern=4x1", "scheduler.warmup=1", "scheduler.cooldown=1")
# What is typed, given a text with an interpolation and a folder of config files.
WAYS: dict[str, Callable[[str, Path], tuple[str, ...]]] = {
    "typed": lambda text, _: ("pattern=dense", f"tracker.entity='\\{text}'"),
    "in a list": lambda text, _: ("pattern=dense", f"tracker.tags=['\\{text}']"),
    "a plan": lambda text, _: ("pattern=dense", f"tracker.entity='\\{text}'", "plan=true"),
    "a sweep": lambda text, _: ("-m", "pattern=dense", "seed=0,1", f"tracker.entity='\\{text}'", "plan=true"),
    "a sparse run": lambda text, _: (*SHORT, f"tracker.entity='\\{text}'", "plan=true"),
    "the dense run": lambda text, _: ("pattern=4x1", f'dense.overrides=["+tracker.entity=\\{text}"]', "plan=true"),
    "an experiment file": lambda _, place: (f"--config-dir={place}", "pattern=dense", "experiment=theirs"),
    "a matrix file": lambda _, place: ("-m", f"--config-dir={place}", "pattern=dense", "matrix=theirs", "plan=true"),
}
TINY = ("model=tiny", "task=toy", "task.train_examples=64", "task.evaluation_examples=16", "training.epochs=1")


@pytest.mark.parametrize("way", WAYS)
def test_no_way_into_a_run_brings_a_text_to_life(
    way: str, train: Callable[..., Any], calls: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("theirs")
    tracker = f"tracker:\n  entity: '\\{LIVE[0]}'\n"
    for group, more in (("experiment", ""), ("matrix", "hydra:\n  sweeper:\n    params:\n      seed: 0,1\n")):
        (place / group).mkdir()
        (place / group / "theirs.yaml").write_text(f"# @package _global_\n{more}{tracker}")
    finished = train(*WAYS[way](LIVE[0], place), *TINY, "tracker=wandb", "tracker.mode=offline")
    assert finished.code == (2 if way == "the dense run" else 0), finished.err
    assert "Traceback" not in finished.err
    assert calls == []
