"""Progressive pruning: parts between updates, weight by weight inside a block, and the full mask at every update."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import PLAIN, adamw, examples, mlp, pruner_of, train
from torch import Tensor, nn

from hydraprune.sparsity import (
    Block,
    Criterion,
    Exp,
    Gradient,
    Linear,
    Magnitude,
    Member,
    OneShot,
    Plans,
    Progressive,
    Pruner,
    Schedule,
    SnipMomentum,
    SparsityError,
    Weight,
    attach,
    block,
    holds_pattern,
    n_of_m,
    zeros_of,
)
from hydraprune.sparsity.layouts import LAYOUTS
from hydraprune.sparsity.progressive import parts_along_blocks, parts_by_scores

STEPS = 24
RAMP = Linear(warmup=4, cooldown=0, frequency=5)  # updates at 4, 9, 14, 19, 24: the last one when training ends
PLANS = [
    *[block(rows, cols, 0.5) for rows, cols in ((4, 1), (1, 4), (2, 2), (1, "channel"), ("channel", 1), (1, 1))],
    n_of_m(2, 4, 0.5),
    n_of_m(1, 4, 0.6),
]
BLOCKS = PLANS[:2]


def progressive(
    model: nn.Module,
    plans: Plans,
    transition: Progressive,
    criterion: Criterion | None = None,
    schedule: Schedule = RAMP,
) -> Pruner:
    return pruner_of(model, plans, criterion or SnipMomentum(), schedule, STEPS, transition)


def followed(
    plans: Plans, transition: Progressive | None, criterion: Criterion
) -> tuple[nn.Module, Pruner, list[dict[str, Tensor]]]:
    """A training with the masks that were in force after every step."""
    model, masks = mlp(), []
    (plan,) = plans.parts.values()
    (pruner,) = attach(model, {plans.name: plan.completed(criterion, RAMP, transition)}, PLAIN, STEPS)

    def note(step: int) -> None:
        masks.append({name: mask.clone() for name, mask in pruner.masks.items()})
        for name, weight in model.named_parameters():
            if name in pruner.masks:
                assert not bool((weight[~pruner.masks[name]] != 0).any())
        assert pruner.zeros == sum(int((~mask).sum()) for mask in pruner.masks.values())

    train(model, [pruner], range(STEPS), after=note)
    return model, pruner, masks


@pytest.mark.parametrize("plans", PLANS, ids=lambda p: p.name)
@pytest.mark.parametrize("criterion", [Magnitude(), SnipMomentum()], ids=lambda c: type(c).__name__)
def test_masks_are_whole_at_every_update_and_nested_between(plans: Plans, criterion: Criterion) -> None:
    model, pruner, masks = followed(plans, Progressive(4), criterion)
    (_, units), total = pruner.pools[0], pruner.total
    sparsities = [sum(int((~mask).sum()) for mask in step.values()) / total for step in masks]
    share = pruner.plan.pattern.share
    for update in range(4, STEPS + 1, 5):
        asked = pruner.updates.sparsity(update, pruner.target_sparsity)
        found = 0
        for member in (member for structure in pruner.structures for member in structure.members):
            view = member.weight.view(
                masks[update].get(member.weight.name, torch.ones(member.weight.parameter.shape) > 0)
            )
            assert member.pattern.legal(view)
            found += int(member.pattern.empty_units(view).sum())
        assert abs(found - units.total * asked / float(share)) <= 1
    for before, now in pairwise(masks):
        assert all(not bool((now[name] & ~before[name]).any()) for name in before)
    # Four strides of one step lead up to an update: the mask grows in each of them, and in none between.
    grows = [step for step in range(1, STEPS + 1) if sparsities[step] > sparsities[step - 1]]
    assert grows == [step for update in range(9, STEPS + 1, 5) for step in range(update - 3, update + 1)]
    assert units.pruned == units.target
    assert holds_pattern(pruner, dict(model.named_parameters())) == (True, units.target)
    assert sum(zeros_of(w.parameter.detach()) for w in pruner.weights) == pruner.zeros


def legal(pruner: Pruner) -> bool:
    """Whether every mask in force is one of whole units."""
    members = [member for structure in pruner.structures for member in structure.members]
    masks = pruner.masks
    return all(m.pattern.legal(m.weight.view(masks[m.weight.name])) for m in members if m.weight.name in masks)


@pytest.mark.parametrize("plans", BLOCKS, ids=lambda p: p.name)
@pytest.mark.parametrize("order", ["scores", "linear"])
def test_blocks_are_partly_zero_between_updates(plans: Plans, order: str) -> None:
    model = mlp()
    pruner = progressive(model, plans, Progressive(4, order))  # type: ignore[arg-type]
    partly = []

    def look(step: int) -> None:
        partly.append(not legal(pruner))

    train(model, [pruner], range(STEPS), after=look)
    assert [step for step, found in enumerate(partly) if found] == [6, 7, 8, 11, 12, 13, 16, 17, 18, 21, 22, 23]


def test_parts_are_equal_and_prune_the_same_blocks_as_one_update() -> None:
    # Weights and gradients that no mask changes: then the choice is that of the plain pruner, made earlier.
    _, pruner, masks = followed(block(4, 1, 0.5), Progressive(4), Magnitude())
    zeros = [sum(int((~mask).sum()) for mask in step.values()) for step in masks]
    for update in range(9, STEPS + 1, 5):
        gone, start = zeros[update] - zeros[update - 4], zeros[update - 4]
        assert [zeros[update - 4 + part] - start for part in range(1, 5)] == [gone * part // 4 for part in range(1, 5)]
    assert pruner.zeros == zeros[-1] == 600


@given(st.integers(2, 7), st.lists(st.integers(0, 30), min_size=1, max_size=3), st.integers(0, 10**6))
@examples(60)
def test_parts_by_scores_against_a_plain_sort(parts: int, sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randint(0, 5, (n,), generator=generator).float() for n in sizes]
    news = [torch.rand(n, generator=generator) > 0.3 for n in sizes]
    stages = torch.cat([*parts_by_scores(news, scores, parts), torch.zeros(0, dtype=torch.uint8)]).tolist()
    flat = torch.cat(news).tolist()
    order = sorted((i for i, new in enumerate(flat) if new), key=lambda i: (torch.cat(scores)[i].item(), i))
    for part in range(1, parts + 1):
        expected = set(order[: len(order) * part // parts])
        assert {i for i, stage in enumerate(stages) if 0 < stage <= part} == expected
    assert all((stage > 0) == new for stage, new in zip(stages, flat, strict=True))


def member(pattern: Block, *shape: int) -> Member:
    layer = nn.Linear(shape[1], shape[0])
    return Member(Weight("weight", layer.weight, LAYOUTS["Linear"]), pattern)


def test_linear_goes_along_the_longer_side() -> None:
    new = torch.zeros(8, 1, 2, dtype=torch.bool)
    new[:4, 0, 1] = True
    assert parts_along_blocks(member(Block(4, 1), 8, 2), new, 2)[:, 0].tolist() == [
        [0, 1],
        [0, 1],
        [0, 2],
        [0, 2],
        *[[0, 0]] * 4,
    ]
    every = torch.ones(2, 1, 8, dtype=torch.bool)
    assert parts_along_blocks(member(Block(1, 4), 2, 8), every, 4)[:, 0].tolist() == [[1, 2, 3, 4] * 2] * 2
    assert parts_along_blocks(member(Block(1, "channel"), 2, 8), every, 2)[:, 0].tolist() == [[1] * 4 + [2] * 4] * 2
    assert (
        parts_along_blocks(member(Block("channel", 1), 8, 2), every.reshape(8, 1, 2), 2)[:, 0, 0].tolist()
        == [1] * 4 + [2] * 4
    )
    # Rows where a block is at least as high as it is wide.
    assert parts_along_blocks(member(Block(2, 2), 2, 2), torch.ones(2, 1, 2, dtype=torch.bool), 2)[:, 0].tolist() == [
        [1, 1],
        [2, 2],
    ]


def test_the_criterion_orders_weights_one_by_one() -> None:
    model = nn.Sequential(nn.Linear(2, 4, bias=False))
    model[0].weight.data = torch.tensor([[4.0, 9.0], [3.0, 9.0], [1.0, 9.0], [2.0, 9.0]])
    (plan,) = block(4, 1, 0.5).parts.values()
    (pruner,) = attach(
        model, {"4x1": plan.completed(Magnitude(), Exp(warmup=3, frequency=4), Progressive(4))}, PLAIN, 3
    )
    columns = []
    for step in range(4):
        pruner.project(step)
        columns.append(model[0].weight[:, 0].tolist())
    # One update, at step 3, of which the parts come before it.
    assert columns == [[4, 3, 0, 2], [4, 3, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("order", ["scores", "linear"])
def test_a_run_resumed_between_parts_ends_the_same(order: str) -> None:
    for cut in (10, 11, 12, 13, 14):
        whole, halves = mlp(), mlp()
        one, two = (progressive(m, block(4, 1, 0.5), Progressive(4, order)) for m in (whole, halves))  # type: ignore[arg-type]
        optimizer = adamw(halves)
        train(whole, [one], range(STEPS))
        train(halves, [two], range(cut), optimizer)
        kept = io.BytesIO()
        torch.save(
            {"model": halves.state_dict(), "optimizer": optimizer.state_dict(), "pruner": two.state_dict()}, kept
        )
        kept.seek(0)
        state, resumed = torch.load(kept, weights_only=True), mlp(seed=9)
        three, later = progressive(resumed, block(4, 1, 0.5), Progressive(4, order)), adamw(resumed)  # type: ignore[arg-type]
        resumed.load_state_dict(state["model"])
        later.load_state_dict(state["optimizer"])
        three.load_state_dict(state["pruner"])
        assert three.zeros == two.zeros
        train(resumed, [three], range(cut, STEPS), later)
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("order", ["scores", "linear"])
def test_a_run_resumed_between_distant_parts_ends_the_same(order: str) -> None:
    schedule = Linear(warmup=4, frequency=12)  # updates at 4, 16; parts at 7, 10, 13, 16

    def fresh(model: nn.Module) -> Pruner:
        return progressive(model, block(4, 1, 0.5), Progressive(4, order), None, schedule)  # type: ignore[arg-type]

    whole = mlp()
    train(whole, [fresh(whole)], range(STEPS))
    for cut in (8, 9, 11, 15):
        model = mlp()
        optimizer, pruner = adamw(model), fresh(model)
        train(model, [pruner], range(cut), optimizer)
        later = fresh(model)
        later.load_state_dict(pruner.state_dict())
        assert all(torch.equal(mask, later.masks[name]) for name, mask in pruner.masks.items())
        train(model, [later], range(cut, STEPS), optimizer)
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("plans", PLANS, ids=lambda p: p.name)
def test_weights_are_scored_twice_only_where_blocks_are_scored_too(plans: Plans) -> None:
    model = mlp()
    pruner = progressive(model, plans, Progressive(4))
    train(model, [pruner], range(6))
    single = plans.name in ("1x1", "2:4", "1:4")
    assert len(pruner.state_dict()["memory"]) == 2
    assert len(pruner.state_dict()["parts"]["order"]) == (0 if single else 2)


def test_revived_weights_return_with_the_first_part() -> None:
    _, pruner, masks = followed(block(4, 1, 0.5), Progressive(4), Gradient())
    back = [step for step, (a, b) in enumerate(pairwise(masks), 1) if any(bool((b[n] & ~a[n]).any()) for n in a)]
    assert set(back) <= {6, 11, 16, 21}
    assert pruner.pools[0][1].pruned == pruner.pools[0][1].target
    assert all(
        m.pattern.legal(m.weight.view(pruner.masks[m.weight.name])) for s in pruner.structures for m in s.members
    )


@pytest.mark.parametrize(
    ("plans", "transition", "schedule", "words"),
    [
        (block(4, 1, 0.5), Progressive(4), Linear(warmup=4, frequency=3), ["frequency=3", "4 parts"]),
        (block(4, 1, 0.5), Progressive(4), OneShot(warmup=9), ["frequency", "progressive=none"]),
        (block(4, 1, 0.5), Progressive(3, "linear"), RAMP, ["parts=3", "4x1", "order=scores"]),
        (n_of_m(2, 4, 0.5), Progressive(2, "linear"), RAMP, ["order=linear", "2:4", "order=scores"]),
        (block(4, 1, 0.5, initial_sparsity=0.2), Progressive(4), Linear(warmup=2, frequency=4), ["warmup", "4 steps"]),
    ],
)
def test_what_cannot_be_divided_into_parts_is_refused(
    plans: Plans, transition: Progressive, schedule: Schedule, words: list[str]
) -> None:
    with pytest.raises(SparsityError) as error:
        progressive(mlp(), plans, transition, SnipMomentum(), schedule)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("parts", "order"), [(1, "scores"), (0, "scores"), (101, "linear"), (True, "scores"), (4, "random")]
)
def test_unknown_parts_and_orders_are_refused(parts: int, order: str) -> None:
    with pytest.raises(SparsityError, match=r"parts=|order="):
        Progressive(parts, order)  # type: ignore[arg-type]
