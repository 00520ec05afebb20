"""The identity of runs, and runs of earlier versions that are still found."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from experiment_helpers import dense_run, experiment_of

from hydraprune.config.identity import Identity, identify
from hydraprune.config.renamed_targets import with_current_targets, with_earliest_targets
from hydraprune.runs.experiment import folder_of

BASE = ("model=tiny", "task=toy", "pattern=4x1")
EARLIER = json.loads(Path(__file__).with_name("identities_of_0_1_0.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", EARLIER[::5] + EARLIER[-16:], ids=lambda row: " ".join(row["words"]))
def test_hash_cell_and_folder_are_those_of_the_version_before(row: dict[str, Any]) -> None:
    """Every fifth of the file; benchmarks/identities.py compares all of it."""
    experiment = experiment_of(*row["words"])
    assert (experiment.spec.hash, experiment.spec.cell) == (row["hash"], row["cell"])
    assert experiment.identity.folder == row["folder"]


def test_targets_of_the_version_before_are_found_and_hashed_as_before() -> None:
    earlier = {"task": {"_target_": "hydraprune.hub.tasks.ToyTask", "list": [{"_target_": "x.y"}]}, "n": 1}
    current = with_current_targets(earlier)
    assert current["task"]["_target_"] == "hydraprune.data.tasks.ToyTask"
    assert current["task"]["list"] == [{"_target_": "x.y"}]
    assert with_earliest_targets(current) == earlier
    typed = experiment_of(*BASE, "task._target_=hydraprune.hub.tasks.ToyTask")
    assert typed.identity == experiment_of(*BASE).identity
    assert type(typed.components.task).__name__ == "ToyTask"


@pytest.mark.parametrize(
    "words",
    [
        ("pattern.target_sparsity=0.9",),
        ("pattern.target_sparsity=.90",),
        ("training.epochs=5",),  # the recipe's value
        ("run.root=elsewhere",),
        ("sweep=mine",),
        ("hydra.run.dir=elsewhere",),
        ("distill.weight=1",),  # 1.0 in the recipe
        ("training.checkpoint_every=7",),
        ("training.checkpoint_every=null",),
        ("distill.online=true",),  # the same bits: tests/runs/test_determinism.py
        ("cache.max_gb=0",),
    ],
)
def test_spelling_and_place_do_not_change_the_hash(words: tuple[str, ...]) -> None:
    assert experiment_of(*BASE, *words).spec.hash == experiment_of(*BASE).spec.hash


@pytest.mark.parametrize(
    "words",
    [
        ("pattern.target_sparsity=0.8",),
        ("pattern.rows=8",),
        ("seed=1",),
        ("runtime.threads=2",),
        ("training.precision=bf16",),
        ("task.max_train_examples=100",),
        ("dense.source=/models/mine",),
    ],
)
def test_keys_that_change_the_result_change_the_hash(words: tuple[str, ...]) -> None:
    assert experiment_of(*BASE, *words).spec.hash != experiment_of(*BASE).spec.hash


def test_a_config_without_the_checkpoint_key_has_the_same_hash() -> None:
    """Runs from before the key existed are still found."""
    before = copy.deepcopy(dict(experiment_of(*BASE, "pattern=dense").config))
    del before["training"]["checkpoint_every"]
    assert identify(before, "dense").hash == experiment_of(*BASE, "pattern=dense").spec.hash


def test_a_dense_run_keeps_checkpoints_as_its_sparse_run_does() -> None:
    dense = dense_run(experiment_of(*BASE, "training.checkpoint_every=0.5ep"))
    assert dense.config["training"]["checkpoint_every"] == "0.5ep"
    assert dense.spec.hash == dense_run(experiment_of(*BASE)).spec.hash


def test_all_seeds_share_a_cell() -> None:
    assert experiment_of(*BASE, "seed=1").spec.cell == experiment_of(*BASE).spec.cell
    assert experiment_of(*BASE, "pattern.rows=8").spec.cell != experiment_of(*BASE).spec.cell


def test_the_folder_is_named_after_the_run() -> None:
    experiment = experiment_of("model=tiny", "task=toy", "pattern=2:4", "seed=3")
    assert str(experiment.directory) == f"outputs/toy/tiny/2of4/snip_momentum-0.5-seed3-{experiment.spec.hash}"


@pytest.mark.parametrize("words", [BASE, ("pattern=mixed",), ("pattern=dense",), ("pattern=lock", "dense.source=/m")])
def test_the_resolver_finds_the_same_folder(words: tuple[str, ...]) -> None:
    from hydra import compose

    config = compose("config", list(words), return_hydra_config=True)
    assert folder_of(config) == experiment_of(*words).identity.folder
    assert str(config.hydra.run.dir) == str(experiment_of(*words).directory)


@pytest.mark.parametrize("model", ["tiny", "bert_mini"])
@pytest.mark.parametrize("task", ["toy", "mrpc", "cola"])
def test_the_dense_run_is_the_one_that_pattern_dense_makes(model: str, task: str) -> None:
    own = (f"model={model}", f"task={task}", "seed=2", "training.precision=bf16", "runtime.threads=1")
    typed = experiment_of(*own, "pattern=dense")
    for pattern in ("4x1", "mixed"):
        sparse = experiment_of(*own, f"pattern={pattern}", "pattern.target_sparsity=0.3", "optimizer.lr=0.1")
        assert dense_run(sparse).spec.hash == typed.spec.hash
        assert dense_run(sparse).directory == typed.directory


def test_another_dense_model_makes_another_run() -> None:
    longer = experiment_of(*BASE, "dense.overrides=['training.epochs=9']")
    assert longer.spec.hash != experiment_of(*BASE).spec.hash
    assert longer.spec.cell != experiment_of(*BASE).spec.cell
    # Also if no key of the sparse config differs, as with another recipe for the dense run.
    config = experiment_of(*BASE).config
    one, two = (identify(config, "4x1", Identity(hash_, cell, "")) for hash_, cell in (("a", "b"), ("c", "d")))
    assert one.hash != two.hash
    assert one.cell != two.cell


def test_the_dense_run_has_the_task_and_model_of_its_sparse_run() -> None:
    own = ("model=bert_mini", "model.path=/models/mine", "task=mrpc", "task.path=/data/glue", "task.max_length=64")
    dense = dense_run(experiment_of(*own, "dense.overrides=['training.epochs=2']"))
    assert dense.spec.hash == experiment_of(*own, "pattern=dense", "training.epochs=2").spec.hash
    assert dense.config["model"]["path"] == "/models/mine"
    assert dense.config["task"]["max_length"] == 64
    assert dense.config["training"]["epochs"] == 2
