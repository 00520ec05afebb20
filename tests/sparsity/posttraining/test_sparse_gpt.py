"""SparseGPT against pruning one weight at a time, with the inverse Hessian of the rest computed for each."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from posttraining_helpers import batches_of, calibrated, double
from sparsity_helpers import examples, prune_now
from torch import Tensor

from hydraprune.sparsity import Plans, SparseGpt, SparsityError, block, exact, n_of_m


def hessian_of(batches: list[Tensor], damping: float = 0.01) -> Tensor:
    inputs = torch.cat(batches)
    product = inputs.t() @ inputs
    return product + damping * product.diagonal().mean() * torch.eye(len(product), dtype=product.dtype)


def rest(hessian: Tensor, first: int) -> Tensor:
    """The inverse of the Hessian of the columns from `first` on: those before are settled."""
    return torch.linalg.inv(hessian[first:, first:])


def one_at_a_time(weight: Tensor, hessian: Tensor, goal: int, columns: int) -> Tensor:
    """Unstructured: the mask of some columns at a time, then each weight taken and made up for."""
    weights, total = weight.clone(), weight.shape[1]
    done = 0
    for start in range(0, total, columns):
        end = min(start + columns, total)
        costs = {
            (i, j): float(weights[i, j] ** 2 / rest(hessian, j)[0, 0])
            for i in range(len(weights))
            for j in range(start, end)
        }
        count = goal * end // total - done
        done += count
        _take(weights, hessian, set(sorted(costs, key=costs.__getitem__)[:count]), start, end)
    return weights


def _take(weights: Tensor, hessian: Tensor, gone: set[tuple[int, int]], start: int, end: int) -> None:
    for j in range(start, end):
        inverse = rest(hessian, j)
        for i in range(len(weights)):
            if (i, j) in gone:
                weights[i, j:] -= weights[i, j] / inverse[0, 0] * inverse[0]
                weights[i, j] = 0


@given(st.integers(1, 6), st.integers(2, 9), st.floats(0.1, 0.9), st.integers(1, 9), st.integers(0, 1000))
@examples(40)
def test_unstructured(rows: int, cols: int, target: float, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    weight, batches = torch.randn(rows, cols).double(), batches_of(cols, seed=seed)
    layer, goal = double(weight), int(rows * cols * exact(target))
    calibrated(layer, block(1, 1, target, cap=1.0), SparseGpt(columns=columns), batches)
    expected = one_at_a_time(weight, hessian_of(batches), goal, columns)
    assert int((layer.weight == 0).sum()) == goal
    torch.testing.assert_close(layer.weight.detach(), expected)


def test_n_of_m_chooses_group_by_group() -> None:
    torch.manual_seed(0)
    weight, batches = torch.randn(8, 16).double(), batches_of(16)
    layer, hessian, expected = double(weight), hessian_of(batches), weight.clone()
    calibrated(layer, n_of_m(2, 4), SparseGpt(columns=8), batches)
    for start in range(0, 16, 4):
        gone = set()
        for i in range(8):
            costs = {(i, j): float(expected[i, j] ** 2 / rest(hessian, j)[0, 0]) for j in range(start, start + 4)}
            gone |= set(sorted(costs, key=costs.__getitem__)[:2])
        _take(expected, hessian, gone, start, start + 4)
    torch.testing.assert_close(layer.weight.detach(), expected)


@pytest.mark.parametrize(("rows", "cols"), [(2, 1), (2, 2), (1, 4)])
def test_blocks_cost_what_their_removal_costs(rows: int, cols: int) -> None:
    torch.manual_seed(1)
    weight, batches = torch.randn(8, 12).double(), batches_of(12)
    layer, hessian, expected = double(weight), hessian_of(batches), weight.clone()
    plans = block(rows, cols, 0.5)
    calibrated(layer, plans, SparseGpt(), batches)
    costs = {}
    for u in range(8 // rows):
        for v in range(12 // cols):
            # w_S ((H_F^-1)_SS)^-1 w_S, F the columns of S and those after it.
            part = torch.linalg.inv(rest(hessian, v * cols)[:cols, :cols])
            own = weight[u * rows : (u + 1) * rows, v * cols : (v + 1) * cols]
            costs[u, v] = float((own @ part * own).sum())
    chosen = sorted(costs, key=costs.__getitem__)[: len(costs) // 2]
    gone = {(u * rows + r, v * cols + c) for u, v in chosen for r in range(rows) for c in range(cols)}
    _take(expected, hessian, gone, 0, 12)
    torch.testing.assert_close(layer.weight.detach(), expected)


@pytest.mark.parametrize(
    "plans",
    [block(1, 1, 0.6), block(4, 1, 0.5), block(2, 2, 0.5), n_of_m(2, 4), n_of_m(1, 4), block("channel", 1, 0.4)],
    ids=lambda plans: plans.name,
)
def test_the_error_is_smaller_than_by_magnitude_or_without_compensation(plans: Plans) -> None:
    torch.manual_seed(2)
    weight, batches = torch.randn(16, 32).double(), batches_of(32)
    inputs = torch.cat(batches)
    layer, other = double(weight), double(weight)
    calibrated(layer, plans, SparseGpt(), batches)
    prune_now(other, plans)

    def lost(changed: Tensor) -> float:
        return float((inputs @ (changed - weight).t()).norm())

    ours = lost(layer.weight.detach())
    assert ours < 0.95 * lost(weight * (layer.weight != 0))
    assert ours < 0.95 * lost(other.weight.detach())


def test_inputs_that_are_always_zero_are_pruned_first_and_affect_no_others() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 8).double()
    batches = [batch * torch.tensor([1, 0, 1, 1, 0, 1, 1, 1]) for batch in batches_of(8)]
    layer = double(weight)
    calibrated(layer, block(1, 1, 0.25), SparseGpt(), batches)
    gone = layer.weight == 0
    assert gone[:, [1, 4]].all()
    assert int(gone.sum()) == 12
    torch.testing.assert_close(layer.weight.detach(), weight * ~gone)
    layer = double(weight)
    calibrated(layer, block(1, 1, 0.5), SparseGpt(), [torch.zeros(3, 8, dtype=torch.float64)])
    assert int((layer.weight == 0).sum()) == 24


@pytest.mark.parametrize("pattern", [block(1, "channel", 0.5), block(4, "channel", 0.5)], ids=lambda p: p.name)
def test_patterns_of_whole_rows_are_refused(pattern: Plans) -> None:
    with pytest.raises(SparsityError, match=rf"pruner=sparse_gpt: {pattern.name} leaves no column"):
        calibrated(double(torch.randn(8, 8)), pattern, SparseGpt(), batches_of(8))


@pytest.mark.parametrize(("key", "value"), [("damping", 0.0), ("damping", -1), ("columns", 0), ("batches", 0)])
def test_numbers_out_of_range(key: str, value: float) -> None:
    with pytest.raises(SparsityError, match=f"{key}={value}: must be"):
        SparseGpt(**{key: value})  # type: ignore[arg-type]
