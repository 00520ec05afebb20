"""Selection: exactly k cheapest units, within floors and caps, in any order of layers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import examples
from torch import Tensor

from hydraprune.sparsity import Budget, NofM, Selection, SparsityError, cheapest, choose, exact

HALF, ALL = Fraction(1, 2), Fraction(1)


# Exact numbers ------------------------------------------------------------------------------------


def test_a_decimal_is_what_the_user_wrote() -> None:
    assert 0.29 * 100 != 29
    assert exact(0.29) * 100 == 29


@given(st.integers(0, 999), st.integers(0, 10**6))
@examples(300)
def test_the_goal_is_the_floor_of_units_times_target(thousandths: int, units: int) -> None:
    budget = Selection(thousandths / 1000, cap=1.0).budget([units], ALL)
    assert budget.goal == budget.count == units * thousandths // 1000


@given(st.integers(0, 500), st.integers(0, 10**6))
@examples(100)
def test_targets_of_groups_are_shares_of_what_they_allow(thousandths: int, groups: int) -> None:
    assert Selection(thousandths / 1000).budget([groups], HALF).goal == groups * 2 * thousandths // 1000


@pytest.mark.parametrize(("target", "units", "goal"), [(1e-5, 10**6, 10), (0.1, 10**7, 10**6), (0, 10, 0)])
def test_small_and_whole_numbers_are_decimals_too(target: float, units: int, goal: int) -> None:
    assert Selection(target).budget([units], ALL).goal == goal


@given(st.integers(0, 999), st.floats(0, 1), st.integers(0, 10**5))
@examples(100)
def test_a_ramp_never_exceeds_the_target(thousandths: int, ratio: float, units: int) -> None:
    budget = Selection(thousandths / 1000, cap=1.0).budget([units], ALL, ratio)
    assert budget.count == min(int(units * ratio), budget.goal)


def test_floors_and_caps_are_counted_per_layer() -> None:
    budget = Selection(0.5, floor=0.29, cap=0.58).budget([100, 50, 7], ALL)
    assert budget.floors == (29, 14, 2)
    assert budget.caps == (58, 29, 4)
    assert budget.goal == 78
    assert budget.spare == 78 - 45


def test_floors_and_caps_of_groups_are_divided_by_the_share() -> None:
    budget = Selection(0.25, floor=0.1, cap=0.3).budget([100, 50], HALF)
    assert budget.floors == (20, 10)
    assert budget.caps == (60, 30)
    assert Selection(0.5).budget([100], HALF).caps == (100,)


# Cheapest -----------------------------------------------------------------------------------------

LEVELS = st.lists(st.integers(0, 4), min_size=1, max_size=30)


@given(LEVELS, st.integers(-2, 33))
@examples(200)
def test_cheapest_is_a_stable_sort(levels: list[int], count: int) -> None:
    costs = torch.tensor(levels, dtype=torch.float32)
    expected = torch.zeros(len(levels), dtype=torch.bool)
    expected[costs.argsort(stable=True)[: max(0, count)]] = True
    assert torch.equal(cheapest(costs, count), expected)


@given(LEVELS, st.integers(0, 30), st.integers(0, 30))
@examples(100)
def test_cheapest_is_nested(levels: list[int], one: int, other: int) -> None:
    costs = torch.tensor(levels, dtype=torch.float32)
    fewer, more = sorted((one, other))
    assert not bool((cheapest(costs, fewer) & ~cheapest(costs, more)).any())


# Choice -------------------------------------------------------------------------------------------


def counts(chosen: Sequence[Tensor]) -> list[int]:
    return [int(layer.sum()) for layer in chosen]


def allowed(taken: Sequence[int], budget: Budget) -> bool:
    """What a budget demands, in its own words: caps hold, and the promise to the floors can be kept."""
    beyond = sum(max(0, n - floor) for n, floor in zip(taken, budget.floors, strict=True))
    return (
        sum(taken) == budget.count
        and all(n <= cap for n, cap in zip(taken, budget.caps, strict=True))
        and beyond <= budget.spare
    )


def least_loss(costs: Sequence[Tensor], budget: Budget) -> float:
    """The least total cost of all allowed choices, by looking at every one."""
    owner = [i for i, layer in enumerate(costs) for _ in range(layer.numel())]
    flat = torch.cat(list(costs)).tolist()
    best = float("inf")
    for units in combinations(range(len(flat)), budget.count):
        taken = [0] * len(costs)
        for unit in units:
            taken[owner[unit]] += 1
        if allowed(taken, budget):
            best = min(best, sum(flat[unit] for unit in units))
    return best


@st.composite
def budgeted(draw: st.DrawFn, ties: bool = True) -> tuple[list[Tensor], Budget]:
    """Costs of up to three layers of ten units in all, and a budget that can be kept."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3).filter(lambda n: sum(n) <= 10))
    if ties:
        level = st.integers(0, draw(st.sampled_from([0, 1, 3, 50])))
        values = draw(st.lists(level, min_size=sum(sizes), max_size=sum(sizes)))
    else:
        values = draw(st.permutations(range(sum(sizes))))
    costs = list(torch.split(torch.tensor(values, dtype=torch.float32), sizes))
    caps = tuple(draw(st.integers(0, n)) for n in sizes)
    floors = tuple(draw(st.integers(0, cap)) for cap in caps)
    goal = draw(st.integers(sum(floors), sum(caps)))
    count = draw(st.integers(0, goal))
    return costs, Budget(count, goal, floors, caps)


@given(budgeted())
@examples(400)
def test_the_choice_is_allowed_and_optimal(case: tuple[list[Tensor], Budget]) -> None:
    costs, budget = case
    chosen = choose(costs, budget)
    assert [layer.shape for layer in chosen] == [layer.shape for layer in costs]
    assert allowed(counts(chosen), budget)
    lost = sum(float(layer[picked].sum()) for layer, picked in zip(costs, chosen, strict=True))
    assert lost == least_loss(costs, budget)


@given(budgeted())
@examples(200)
def test_at_the_last_update_floors_are_hard(case: tuple[list[Tensor], Budget]) -> None:
    costs, budget = case
    last = Budget(budget.goal, budget.goal, budget.floors, budget.caps)
    taken = counts(choose(costs, last))
    assert sum(taken) == budget.goal
    assert all(floor <= n <= cap for n, floor, cap in zip(taken, budget.floors, budget.caps, strict=True))


@given(budgeted(ties=False))
@examples(200)
def test_the_order_of_layers_does_not_matter(case: tuple[list[Tensor], Budget]) -> None:
    costs, budget = case
    straight = choose(costs, budget)
    for order in permutations(range(len(costs))):
        shuffled = choose(
            [costs[i] for i in order],
            Budget(
                budget.count,
                budget.goal,
                tuple(budget.floors[i] for i in order),
                tuple(budget.caps[i] for i in order),
            ),
        )
        assert all(torch.equal(straight[i], picked) for i, picked in zip(order, shuffled, strict=True))


@given(budgeted())
@examples(200)
def test_choices_are_nested_as_the_count_grows(case: tuple[list[Tensor], Budget]) -> None:
    costs, budget = case
    before = torch.zeros(sum(layer.numel() for layer in costs), dtype=torch.bool)
    for count in range(budget.goal + 1):
        now = torch.cat(choose(costs, Budget(count, budget.goal, budget.floors, budget.caps)))
        assert not bool((before & ~now).any())
        before = now


@given(st.lists(LEVELS, min_size=1, max_size=4), st.floats(0, 1))
@examples(200)
def test_without_bounds_no_pruned_unit_costs_more_than_a_kept_one(levels: list[list[int]], share: float) -> None:
    costs = [torch.tensor(layer, dtype=torch.float32) for layer in levels]
    sizes = tuple(layer.numel() for layer in costs)
    count = round(sum(sizes) * share)
    chosen = torch.cat(choose(costs, Budget(count, count, (0,) * len(sizes), sizes)))
    flat = torch.cat(costs)
    assert int(chosen.sum()) == count
    if 0 < count < flat.numel():
        assert float(flat[chosen].max()) <= float(flat[~chosen].min())


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.floats(0, 1), st.sampled_from([0.0, 1.0, 3e38]))
@examples(100)
def test_when_every_score_ties_the_count_is_exact_and_early_units_go(
    sizes: list[int], share: float, score: float
) -> None:
    costs = [torch.full((n,), score) for n in sizes]
    count = round(sum(sizes) * share)
    chosen = torch.cat(choose(costs, Budget(count, count, (0,) * len(sizes), tuple(sizes))))
    assert torch.equal(chosen, torch.arange(sum(sizes)) < count)


@given(budgeted())
@examples(50)
def test_costs_are_not_written(case: tuple[list[Tensor], Budget]) -> None:
    costs, budget = case
    before = [layer.clone() for layer in costs]
    choose(costs, budget)
    assert all(torch.equal(old, new) for old, new in zip(before, costs, strict=True))


def test_a_cost_of_minus_infinity_is_always_pruned() -> None:
    inf = float("inf")
    costs = [torch.tensor([3.0, 1.0, 2.0]), torch.tensor([9.0, -inf, -inf, 9.0])]
    first, second = choose(costs, Budget(3, 4, (0, 0), (3, 2)))
    assert first.tolist() == [False, True, False]
    assert second.tolist() == [False, True, True, False]


def test_an_infinite_score_is_refused() -> None:
    costs = [torch.tensor([float("inf"), 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0])]
    with pytest.raises(SparsityError, match="not finite"):
        choose(costs, Budget(4, 4, (0, 0), (3, 2)))


def test_a_cap_by_hand() -> None:
    # The first layer is cheapest throughout, and may lose two of its four.
    costs = [torch.tensor([4.0, 1.0, 2.0, 3.0]), torch.tensor([9.0, 7.0, 8.0, 6.0])]
    first, second = choose(costs, Budget(4, 4, (0, 0), (2, 4)))
    assert first.tolist() == [False, True, True, False]
    assert second.tolist() == [False, True, False, True]


def test_a_floor_by_hand() -> None:
    # The goal is 4 and the second layer is promised 2: the first may lose 2 before that, and no more.
    costs = [torch.tensor([4.0, 1.0, 2.0, 3.0]), torch.tensor([9.0, 7.0, 8.0, 6.0])]
    taken = [counts(choose(costs, Budget(count, 4, (0, 2), (4, 4)))) for count in range(5)]
    assert taken == [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2]]
    assert choose(costs, Budget(4, 4, (0, 2), (4, 4)))[1].tolist() == [False, True, False, True]


@pytest.mark.parametrize("place", [0, 3])
def test_a_nan_is_refused(place: int) -> None:
    costs = torch.arange(4.0)
    costs[place] = float("nan")
    with pytest.raises(SparsityError, match="NaN"):
        choose([costs[:2], costs[2:]], Budget(1, 1, (0, 0), (2, 2)))


def test_impossible_budgets_are_refused() -> None:
    costs = [torch.arange(4.0)]
    with pytest.raises(SparsityError, match=r"caps \(2,\)"):
        choose(costs, Budget(3, 3, (0,), (2,)))
    with pytest.raises(SparsityError, match=r"floors \(3,\)"):
        choose(costs, Budget(2, 2, (3,), (4,)))


# Selections ---------------------------------------------------------------------------------------


def test_pools() -> None:
    assert Selection(0.5, "global").pools(3) == [[0, 1, 2]]
    assert Selection(0.5, "local").pools(3) == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("target_sparsity", value) for value in (-0.1, 1.0, 1, 90, float("nan"), float("inf"), "0.9", None, True)],
        *[("cap", value) for value in (0, 0.0, -0.5, 1.1, float("nan"), "1", None, True)],
        *[("floor", value) for value in (-0.1, 0.99, 1.0, float("nan"), "0", None, False)],
        *[("scope", value) for value in ("layer", "Global", None, 1)],
    ],
)
def test_a_bad_amount_is_refused(key: str, value: object) -> None:
    with pytest.raises(SparsityError, match=f"^{key}={value}: must be"):
        Selection(**{"target_sparsity": 0.5, key: value})  # type: ignore[arg-type]


def test_a_floor_above_the_cap_names_both() -> None:
    with pytest.raises(SparsityError, match=r"floor=0\.6.*cap=0\.5"):
        Selection(0.5, floor=0.6, cap=0.5)


@pytest.mark.parametrize(
    ("pattern", "target", "largest"), [(NofM(2, 4), 0.6, 0.5), (NofM(1, 4), 0.9, 0.75), (NofM(3, 4), 0.26, 0.25)]
)
def test_a_target_beyond_the_pattern_is_refused(pattern: NofM, target: float, largest: float) -> None:
    with pytest.raises(SparsityError, match=rf"target_sparsity={target}: {pattern.name} .*{largest}"):
        Selection(target).check([100], pattern.share, pattern.name)
    with pytest.raises(SparsityError, match=rf"floor={target}: {pattern.name} .*{largest}"):
        Selection(0.2, floor=target).check([100], pattern.share, pattern.name)


@pytest.mark.parametrize("pattern", [NofM(2, 4), NofM(1, 4), NofM(3, 4), NofM(2, 5)])
def test_a_target_at_the_pattern_s_limit_is_allowed(pattern: NofM) -> None:
    selection = Selection(float(pattern.share))
    selection.check([100, 7], pattern.share, pattern.name)
    assert selection.budget([100, 7], pattern.share).goal == 107


@pytest.mark.parametrize("scope", ["global", "local"])
def test_a_target_above_the_caps_is_refused(scope: str) -> None:
    with pytest.raises(SparsityError) as error:
        Selection(0.9, scope, cap=0.8).check([100, 50], ALL, "4x1")  # type: ignore[arg-type]
    message = str(error.value)
    assert "target_sparsity=0.9" in message
    assert "cap=0.8" in message
    assert scope in message
    assert ("135 of 150" if scope == "global" else "90 of 100") in message
    assert ("120" if scope == "global" else "80") in message


def test_caps_are_truncated_so_small_layers_may_not_reach_the_target() -> None:
    # 3 units at a cap of 0.9 may lose 2, and a local target of 0.9 asks for 2; one unit may lose none.
    Selection(0.9, "local", cap=0.9).check([3], ALL, "1xchannel")
    assert Selection(0.9, "local", cap=0.9).budget([3], ALL).caps == (2,)
    assert Selection(0.9, "local", cap=0.9).budget([1], ALL) == Budget(0, 0, (0,), (0,))


@pytest.mark.parametrize("scope", ["global", "local"])
def test_floors_above_the_target_are_refused(scope: str) -> None:
    with pytest.raises(SparsityError) as error:
        Selection(0.3, scope, floor=0.5).check([100, 50], ALL, "4x1")  # type: ignore[arg-type]
    message = str(error.value)
    assert "floor=0.5" in message
    assert "target_sparsity=0.3" in message
    assert ("75 of 150" if scope == "global" else "50 of 100") in message
    assert ("45" if scope == "global" else "30") in message


@given(
    st.integers(0, 99), st.integers(0, 100), st.integers(1, 100), st.lists(st.integers(0, 12), min_size=1, max_size=3)
)
@examples(300)
def test_every_budget_that_passes_the_check_can_be_chosen(target: int, floor: int, cap: int, sizes: list[int]) -> None:
    floor = min(floor, cap)
    selection = Selection(target / 100, "global", floor / 100, cap / 100)
    try:
        selection.check(sizes, ALL, "1x1")
    except SparsityError:
        assert sum(sizes) * target // 100 > sum(n * cap // 100 for n in sizes) or (
            sum(n * floor // 100 for n in sizes) > sum(sizes) * target // 100
        )
        return
    costs = [torch.arange(n, dtype=torch.float32) for n in sizes]
    for ratio in (0.0, 0.1, 0.5, 0.9, None):
        budget = selection.budget(sizes, ALL, ratio)
        assert allowed(counts(choose(costs, budget)), budget)
