"""What makes two runs the same run."""

from __future__ import annotations

import pytest
from hydra import compose

from hydraprune.runs.dense import dense_request, identity_of
from hydraprune.runs.experiment import Request
from hydraprune.runs.request import request_of


def asked(*words: str) -> Request:
    return request_of(compose("config", list(words), return_hydra_config=True))


BASE = ("model=tiny", "task=toy", "pattern=4x1")


@pytest.mark.parametrize(
    "words",
    [
        ("pattern.target_sparsity=0.9",),
        ("pattern.target_sparsity=.90",),
        ("training.epochs=5",),  # what the recipe says anyway
        ("run.root=elsewhere",),
        ("sweep=mine",),
        ("hydra.run.dir=elsewhere",),
        ("distill.weight=1",),  # 1.0 in the recipe
        ("training.checkpoint_every=7",),
        ("training.checkpoint_every=null",),
        ("distill.online=true",),  # the same bits, which tests/run/test_determinism.py holds
        ("cache.max_gb=0",),
    ],
)
def test_spelling_and_place_do_not_matter(words: tuple[str, ...]) -> None:
    assert asked(*BASE, *words).hash == asked(*BASE).hash


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
def test_what_makes_a_result_matters(words: tuple[str, ...]) -> None:
    assert asked(*BASE, *words).hash != asked(*BASE).hash


def test_checkpoints_came_without_a_new_hash() -> None:
    """The hash of before there was the key, so that runs of then are still found."""
    from hydraprune.config.composition import plain
    from hydraprune.config.identity import identify

    before = plain(asked(*BASE, "pattern=dense").config)
    del before["training"]["checkpoint_every"]
    assert identify(before, "dense").hash == asked(*BASE, "pattern=dense").hash


def test_an_ancestor_keeps_checkpoints_as_its_heir_does() -> None:
    ancestor = dense_request(asked(*BASE, "training.checkpoint_every=0.5ep"))
    assert ancestor.config.training.checkpoint_every == "0.5ep"
    assert ancestor.hash == dense_request(asked(*BASE)).hash


def test_a_cell_is_all_its_seeds() -> None:
    assert asked(*BASE, "seed=1").identity.cell == asked(*BASE).identity.cell
    assert asked(*BASE, "pattern.rows=8").identity.cell != asked(*BASE).identity.cell


def test_the_folder_says_what_it_is() -> None:
    request = asked("model=tiny", "task=toy", "pattern=2:4", "seed=3")
    assert str(request.directory) == f"outputs/toy/tiny/2of4/snip_momentum-0.5-seed3-{request.hash}"


@pytest.mark.parametrize("model", ["tiny", "bert_mini", "distilbert", "minilm"])
@pytest.mark.parametrize("task", ["toy", "mrpc", "sst2", "cola"])
def test_the_ancestor_is_the_run_that_pattern_dense_makes(model: str, task: str) -> None:
    own = (f"model={model}", f"task={task}", "seed=2", "training.precision=bf16", "runtime.threads=1")
    typed = asked(*own, "pattern=dense")
    for pattern in ("4x1", "2:4", "mixed"):
        ancestor = dense_request(asked(*own, f"pattern={pattern}", "pattern.target_sparsity=0.3", "optimizer.lr=0.1"))
        assert ancestor.hash == typed.hash
        assert ancestor.directory == typed.directory


def test_what_is_remembered_of_a_job_is_not_the_asker_s_to_change() -> None:
    request = asked(*BASE)
    ancestor = dense_request(request)
    before = ancestor.hash
    ancestor.config.seed = 17
    ancestor.overrides.append("seed=17")
    again = dense_request(request)
    assert (again.hash, again.config.seed) == (before, request.config.seed)
    assert "seed=17" not in again.overrides
    assert identity_of(ancestor.config, ancestor.choices).hash != before


def test_another_dense_model_makes_another_run() -> None:
    longer = asked(*BASE, "dense.overrides=['training.epochs=9']")
    assert longer.hash != asked(*BASE).hash
    assert longer.identity.cell != asked(*BASE).identity.cell
    # Also when no key of the sparse config tells: were the dense recipe another, the run would be.
    from hydraprune.config.composition import plain
    from hydraprune.config.identity import Identity, identify

    one, two = (identify(plain(asked(*BASE).config), "4x1", Identity(h, c, "")) for h, c in (("a", "b"), ("c", "d")))
    assert one.hash != two.hash
    assert one.cell != two.cell


def test_the_ancestor_has_the_task_and_model_of_its_heir() -> None:
    own = ("model=bert_mini", "model.path=/models/mine", "task=mrpc", "task.path=/data/glue", "task.max_length=64")
    ancestor = dense_request(asked(*own, "dense.overrides=['training.epochs=2']"))
    assert ancestor.hash == asked(*own, "pattern=dense", "training.epochs=2").hash
    assert ancestor.config.model.path == "/models/mine"
    assert ancestor.config.task.max_length == 64
    assert ancestor.config.training.epochs == 2
