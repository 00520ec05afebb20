"""Plans: their arguments, their completion, and mixed plans."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from sparsity_helpers import linear, prune_now

from hydraprune.sparsity import (
    Block,
    Cos,
    Criterion,
    Exp,
    Layers,
    Magnitude,
    Never,
    NofM,
    Plans,
    Schedule,
    Selection,
    Snip,
    SnipMomentum,
    SparsityError,
    Unscored,
    block,
    dense,
    mixed,
    n_of_m,
)


def test_a_block_plan_has_all_its_arguments() -> None:
    layers = Layers(include="fc")
    plans = block(8, "channel", 0.6, "local", 0.1, 0.9, "sum", layers, Snip(), Cos(warmup=3))
    assert plans.name == "8xchannel"
    plan = plans.parts["8xchannel"]
    assert plan.pattern == Block(8, "channel", "sum")
    assert plan.selection == Selection(0.6, "local", 0.1, 0.9)
    assert (plan.layers, plan.criterion, plan.schedule) == (layers, Snip(), Cos(warmup=3))


def test_an_n_of_m_plan_has_all_its_arguments() -> None:
    plans = n_of_m(1, 4, 0.7, "local", 0.1, 0.9, "max")
    plan = plans.parts["1:4"]
    assert plan.pattern == NofM(1, 4, "max")
    assert plan.selection == Selection(0.7, "local", 0.1, 0.9)
    assert plan.layers == Layers()


def test_the_fields_of_a_plan_win_over_shared_ones() -> None:
    own = block(4, 1, 0.5, pruner=Magnitude()).parts["4x1"].completed(SnipMomentum(), Exp(warmup=2))
    assert (own.criterion, own.schedule) == (Magnitude(), Exp(warmup=2))
    own = block(4, 1, 0.5, scheduler=Cos()).parts["4x1"].completed(SnipMomentum(), Exp(warmup=2))
    assert (own.criterion, own.schedule) == (SnipMomentum(), Cos())


@pytest.mark.parametrize(
    ("criterion", "schedule", "words"),
    [(Unscored(), Exp(), "pruner=none"), (Snip(), Never(), "scheduler=none"), (Unscored(), Never(), "=none")],
)
def test_a_plan_that_would_prune_nothing_is_refused(
    criterion: Criterion, schedule: Schedule | Never, words: str
) -> None:
    plan = block(4, 1, 0.5).parts["4x1"]
    with pytest.raises(SparsityError) as error:
        plan.completed(criterion, schedule)
    assert all(word in str(error.value) for word in (words, "4x1", "pattern=dense"))
    own = block(4, 1, 0.5, pruner=Snip(), scheduler=Cos()).parts["4x1"]
    assert own.completed(criterion, schedule) == own.completed(Snip(), Cos())


def test_never_is_over_no_training_and_unscored_scores_nothing() -> None:
    with pytest.raises(SparsityError, match="scheduler=none"):
        Never().over(10)
    assert Unscored().horizon == 0
    with pytest.raises(SparsityError, match="pruner=none"):
        Unscored().update_state(None, [torch.ones(1, 1, 1)], None, Block(1, 1))


@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (1, 3), (5, 7)])
def test_groups_without_a_target_are_all_pruned(keep: int, of: int) -> None:
    plans = n_of_m(keep, of)
    selection = plans.parts[f"{keep}:{of}"].selection
    assert selection.target_sparsity == Fraction(of - keep, of)
    assert plans.target_sparsity == (of - keep) / of
    layer = linear(torch.rand(9, of * 5) + 1)
    assert prune_now(layer, plans).zeros == 45 * (of - keep)
    assert (layer.weight.reshape(45, of) != 0).sum(1).tolist() == [keep] * 45


def test_mixed_plans_keep_the_names_and_numbers_of_their_parts() -> None:
    parts = {"ffn": block(1, 1, 0.9), "attention": block(4, 1, 0.8)}
    plans = mixed(parts, target_sparsity=0.9)
    assert plans.name == "mixed"
    assert list(plans.parts) == ["ffn", "attention"]
    assert plans.parts["attention"] == parts["attention"].parts["4x1"]
    parts.clear()
    assert len(plans.parts) == 2


@pytest.mark.parametrize(
    ("plans", "target"),
    [
        (block(4, 1, 0.9), 0.9),
        (mixed({"a": block(4, 1, 0.9), "b": block(1, 1, 0.9)}), 0.9),
        (mixed({"a": block(4, 1, 0.9), "b": block(1, 1, 0.5)}), None),
        (dense(), None),
    ],
)
def test_the_target_shared_by_all_plans(plans: Plans, target: float | None) -> None:
    assert plans.target_sparsity == target


def test_dense_has_no_plans() -> None:
    assert dense() == Plans("dense", {})


@pytest.mark.parametrize("part", [dense(), mixed({"a": block(4, 1, 0.5), "b": block(1, 1, 0.5)})])
def test_a_part_of_a_mixed_plan_is_one_pattern(part: Plans) -> None:
    with pytest.raises(SparsityError, match=r"parts\.odd: must be one"):
        mixed({"odd": part})


def test_mixed_needs_a_part() -> None:
    with pytest.raises(SparsityError, match="parts"):
        mixed({})
