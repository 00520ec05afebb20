"""Criteria: what a weight is worth, and what is remembered of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import examples

from hydraprune.sparsity import Block, Criterion, Gradient, Magnitude, NofM, Snip, SnipMomentum, SparsityError

W = torch.tensor([[1.0, -2.0], [0.0, 4.0]])
G = torch.tensor([[-3.0, 0.5], [7.0, -1.0]])


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (Magnitude(), [[1, 2], [0, 4]]),
        (Gradient(), [[3, 0.5], [7, 1]]),
        (Snip(), [[3, 1], [0, 4]]),
        (SnipMomentum(), [[3, 1], [0, 4]]),
    ],
)
def test_saliency(criterion: Criterion, expected: list[list[float]]) -> None:
    weight, gradient = W.clone(), G.clone()
    assert torch.equal(criterion.saliency(weight, gradient), torch.tensor(expected))
    assert torch.equal(weight, W)
    assert torch.equal(gradient, G)


@pytest.mark.parametrize(
    ("criterion", "horizon"), [(Magnitude(), 0), (Gradient(), 1), (Snip(), 1), (SnipMomentum(), None)]
)
def test_horizon(criterion: Criterion, horizon: int | None) -> None:
    assert criterion.horizon == horizon


@pytest.mark.parametrize("criterion", [Gradient(), Snip(), SnipMomentum()])
def test_a_gradient_is_asked_for(criterion: Criterion) -> None:
    with pytest.raises(SparsityError, match="gradient"):
        criterion.saliency(W, None)


def test_magnitude_needs_no_gradient() -> None:
    assert torch.equal(Magnitude().saliency(W, None), W.abs())


@pytest.mark.parametrize("criterion", [Gradient(), Snip()])
def test_only_the_last_step_counts(criterion: Criterion) -> None:
    memory = criterion.remember(None, torch.tensor([1.0, 2.0]))
    memory = criterion.remember(memory, torch.tensor([5.0, 0.0]))
    assert memory.tolist() == [5.0, 0.0]


def test_momentum_by_hand() -> None:
    criterion, memory = SnipMomentum(decay=0.5), None
    for value in (8.0, 4.0, 1.0):
        memory = criterion.remember(memory, torch.tensor([value]))
    # 0.5 on the old score, 1 on the new term: (8 / 2 + 4) / 2 + 1.
    assert memory is not None
    assert memory.tolist() == [5.0]


def test_the_published_decay() -> None:
    memory = SnipMomentum().remember(torch.tensor([10.0]), torch.tensor([1.0]))
    assert memory.tolist() == [10.0]
    assert SnipMomentum() == SnipMomentum(decay=0.9)


@given(st.lists(st.lists(st.integers(0, 100), min_size=4, max_size=4), min_size=1, max_size=8))
@examples(50)
def test_momentum_of_units_is_units_of_momentum(history: list[list[int]]) -> None:
    # Reducing inside the recurrence, as is done, equals reducing its result for a mean.
    criterion, pattern = SnipMomentum(), Block(2, 2)
    whole = pooled = None
    for step in history:
        saliency = torch.tensor(step, dtype=torch.float64).reshape(2, 1, 2)
        pooled = criterion.remember(pooled, pattern.pool(saliency))
        whole = criterion.remember(whole, saliency.clone())
    assert whole is not None
    assert torch.allclose(pattern.pool(whole), pooled)


@pytest.mark.parametrize("pattern", [Block(1, 1), Block(2, 1), Block(1, "channel"), NofM(1, 2)])
def test_memory_is_apart_from_weight_and_gradient(pattern: Block | NofM) -> None:
    # remember() may write into what it returned last; that must never be a parameter or its gradient.
    criterion, weight, gradient = SnipMomentum(), W.clone(), G.clone()
    memory = None
    for _ in range(3):
        saliency = criterion.saliency(weight, gradient).unsqueeze(1)
        memory = criterion.remember(memory, pattern.pool(saliency))
    assert memory is not None
    assert float(memory.sum()) > 0
    assert torch.equal(weight, W)
    assert torch.equal(gradient, G)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(SparsityError, match=f"decay={decay}"):
        SnipMomentum(decay=decay)


def test_no_decay_at_all_is_snip() -> None:
    memory = SnipMomentum(decay=0.0).remember(torch.tensor([9.0]), torch.tensor([2.0]))
    assert memory.tolist() == [2.0]
