"""Wanda against plain loops over stored inputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from posttraining_helpers import ATTENTION, Attention, batches_of, calibrated, double
from sparsity_helpers import examples
from torch import Tensor, nn

from hydraprune.sparsity import Plans, Wanda, block, exact, n_of_m, only
from hydraprune.sparsity.plans import heads
from hydraprune.sparsity.posttraining.wanda import in_equal_shares


def scores_of(weight: Tensor, batches: list[Tensor]) -> list[list[float]]:
    """|w_ij| * ||x_j||, one number at a time."""
    inputs = torch.cat(batches).detach()
    norms = [float(inputs[:, j].norm()) for j in range(inputs.shape[1])]
    return [[abs(float(w)) * norms[j] for j, w in enumerate(row)] for row in weight]


def by_rows(units: list[list[float]], count: int) -> set[tuple[int, int]]:
    """(row, place) of the cheapest units of every row, and then of the cheapest next ones."""
    ranked = [sorted((cost, place) for place, cost in enumerate(row)) for row in units]
    share = count // len(units)
    gone = {(row, place) for row, costs in enumerate(ranked) for _, place in costs[:share]}
    following = sorted(
        (costs[share][0], row, costs[share][1]) for row, costs in enumerate(ranked) if share < len(costs)
    )
    return gone | {(row, place) for _, row, place in following[: count - len(gone)]}


@given(
    st.integers(1, 5), st.integers(1, 5), st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 2)]), st.floats(0.05, 0.95),
    st.integers(0, 1000),
)  # fmt: skip
@examples(60)
def test_every_row_loses_its_cheapest_units(
    down: int, across: int, sides: tuple[int, int], target: float, seed: int
) -> None:
    rows, cols = sides
    torch.manual_seed(seed)
    weight = torch.randn(down * rows, across * cols)
    batches = batches_of(across * cols, seed=seed)
    scores = scores_of(weight, batches)
    means = [
        [
            sum(scores[i * rows + r][j * cols + c] for r in range(rows) for c in range(cols)) / (rows * cols)
            for j in range(across)
        ]
        for i in range(down)
    ]
    layer = double(weight)
    pruner = calibrated(layer, block(rows, cols, target, cap=1.0), Wanda(), batches)
    gone = by_rows(means, int(down * across * exact(target)))
    zeros = {(i, j) for i in range(down) for j in range(across) if not layer.weight[i * rows, j * cols]}
    assert zeros == gone
    assert int((layer.weight == 0).sum()) == rows * cols * len(gone) == pruner.zeros


def test_the_cheapest_of_every_group_are_pruned() -> None:
    weight, batches = torch.randn(6, 12), batches_of(12)
    layer = double(weight)
    calibrated(layer, n_of_m(2, 4), Wanda(), batches)
    for row, costs in zip(layer.weight, scores_of(weight, batches), strict=True):
        for start in range(0, 12, 4):
            group = sorted(range(start, start + 4), key=costs.__getitem__)
            assert [not row[j] for j in group] == [True, True, False, False]


def test_inputs_matter() -> None:
    """What magnitude keeps goes where its input is small."""
    layer = double(torch.tensor([[3.0, 1.0], [2.0, 1.0]]))
    calibrated(layer, block(1, 1, 0.5), Wanda(), [torch.tensor([[0.1, 10.0]], dtype=torch.float64)])
    assert layer.weight.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("plans", [block(1, "channel", 0.5), block("channel", 1, 0.5)], ids=lambda p: p.name)
def test_a_row_of_one_unit_competes_with_the_layer(plans: Plans) -> None:
    weight, batches = torch.randn(6, 8), batches_of(8)
    layer = double(weight)
    calibrated(layer, plans, Wanda(), batches)
    scores = torch.tensor(scores_of(weight, batches))
    means = scores.mean(1 if plans.name == "1xchannel" else 0)
    empty = (layer.weight == 0).all(1 if plans.name == "1xchannel" else 0)
    assert empty.tolist() == [bool(m <= means.sort().values[len(means) // 2 - 1]) for m in means]


def test_heads() -> None:
    torch.manual_seed(3)
    model = Attention()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batches = batches_of(8)
    seen: list[Tensor] = []
    handle = model.output.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for batch in batches:
        model(batch)
    handle.remove()
    parts = []
    for name in ("query", "key", "value"):
        parts.append(torch.tensor(scores_of(before[f"{name}.weight"], batches)).reshape(4, 2, 8).mean((1, 2)))
    parts.append(torch.tensor(scores_of(before["output.weight"], seen)).reshape(8, 4, 2).mean((0, 2)))
    costs = sum(parts)
    assert isinstance(costs, Tensor)
    calibrated(model, heads(0.5), Wanda(), batches, ATTENTION)
    gone = set(costs.argsort()[:2].tolist())
    assert {h for h in range(4) if not model.query.weight[2 * h : 2 * h + 2].any()} == gone
    assert {h for h in range(4) if not model.output.weight[:, 2 * h : 2 * h + 2].any()} == gone


def test_padding_is_ignored() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 8).double()
    tokens = torch.randn(2, 5, 8, dtype=torch.float64)
    real = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    poisoned = tokens + 1e6 * (1 - real).unsqueeze(-1) * torch.rand(8)

    def zeros(model: nn.Linear, batch: Tensor, mask: Tensor | None) -> Tensor:
        from posttraining_helpers import plan_at_start
        from sparsity_helpers import PLAIN

        from hydraprune.sparsity import attach

        def run(count: int):  # type: ignore[no-untyped-def]
            if mask is None:
                loss = model(batch).sum()
            else:
                with only(mask):
                    loss = model(batch).sum()
            yield loss

        (pruner,) = attach(model, {"p": plan_at_start(block(1, 1, 0.5), Wanda())}, PLAIN, steps=0, calibration=run)
        pruner.project(0)
        return model.weight == 0

    plain = zeros(double(weight), tokens[real.bool()], None)
    assert torch.equal(zeros(double(weight), poisoned, real), plain)
    flat = poisoned.flatten(0, 1)
    assert torch.equal(zeros(double(weight), flat, real), plain)
    assert not torch.equal(zeros(double(weight), poisoned, None), plain)


@given(st.integers(1, 6), st.integers(1, 6), st.data())
@examples(100)
def test_shares_are_equal_and_add_up(rows: int, units: int, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 10**6))
    generator = torch.Generator().manual_seed(seed)
    empty = torch.rand(rows, units, generator=generator) < data.draw(st.sampled_from([0.0, 0.3, 0.8]))
    count = data.draw(st.integers(int(empty.sum()), rows * units))
    costs = torch.randint(0, 3, (rows, units), generator=generator).float()  # many ties
    gone = in_equal_shares(costs, count, empty)
    assert int(gone.sum()) == count
    assert bool((gone | ~empty).all())
    fair = gone.sum(1)[gone.sum(1) > empty.sum(1)]
    # Whoever lost more than what was empty lost as much as anyone, to one unit.
    assert all(int(lost) <= int(gone.sum(1).min()) + 1 for lost in fair)
    for row in range(rows):
        living = costs[row][~empty[row]]
        cost_of_gone = costs[row][gone[row] & ~empty[row]]
        assert torch.equal(cost_of_gone.sort().values, living.sort().values[: len(cost_of_gone)])
