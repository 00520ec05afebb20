"""Criteria: scores of weights and their state over steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import examples
from torch import Tensor

from hydraprune.sparsity import (
    Block,
    Criterion,
    Exp,
    Gradient,
    Magnitude,
    NofM,
    Pattern,
    Snip,
    SnipMomentum,
    SparsityError,
    use_compiled,
)
from hydraprune.sparsity.criteria import ROUNDING

W = torch.tensor([[1.0, -2.0], [0.0, 4.0]]).unsqueeze(1)
G = torch.tensor([[-3.0, 0.5], [7.0, -1.0]]).unsqueeze(1)
WHOLE = Block(1, 1)


def one(criterion: Criterion, state: Tensor | None, weight: Tensor, gradient: Tensor, pattern: Pattern) -> Tensor:
    (cells,) = criterion.update_state(None if state is None else [state], [weight], [gradient], pattern)
    return cells


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
    assert torch.equal(one(criterion, None, weight, gradient, WHOLE), torch.tensor(expected))
    assert torch.equal(weight, W)
    assert torch.equal(gradient, G)


@pytest.mark.parametrize(
    ("criterion", "horizon"),
    [(Magnitude(), 0), (Gradient(), 1), (Snip(), 1), (SnipMomentum(), 158), (SnipMomentum(decay=0.0), 1)],
)
def test_horizon(criterion: Criterion, horizon: int) -> None:
    assert criterion.horizon == horizon


@given(st.floats(0.01, 0.999))
@examples(50)
def test_steps_beyond_the_horizon_are_below_rounding(decay: float) -> None:
    horizon = SnipMomentum(decay).horizon
    assert decay**horizon <= ROUNDING * (1 + 1e-9)
    assert horizon == 1 or decay ** (horizon - 1) > ROUNDING * (1 - 1e-9)


@pytest.mark.parametrize("criterion", [Gradient(), Snip(), SnipMomentum()])
def test_a_missing_gradient_is_refused(criterion: Criterion) -> None:
    with pytest.raises(SparsityError, match="gradient"):
        criterion.update_state(None, [W], None, WHOLE)


def test_magnitude_needs_no_gradient() -> None:
    assert torch.equal(Magnitude().update_state(None, [W], None, WHOLE)[0], W.abs().squeeze(1))


@pytest.mark.parametrize("criterion", [Gradient(), Snip(), SnipMomentum(decay=0.0)])
def test_only_the_last_step_counts(criterion: Criterion) -> None:
    state = one(criterion, None, W, G, WHOLE)
    assert torch.equal(one(criterion, state, W, 2 * G, WHOLE), one(criterion, None, W, 2 * G, WHOLE))


def scalar(value: float) -> Tensor:
    return torch.full((1, 1, 1), value)


def test_momentum_by_hand() -> None:
    criterion, state = SnipMomentum(decay=0.5), None
    for value in (8.0, 4.0, 1.0):
        state = one(criterion, state, scalar(1.0), scalar(value), WHOLE)
    # 0.5 on the old score, 1 on the new term: (8 / 2 + 4) / 2 + 1.
    assert state is not None
    assert state.item() == 5.0


def test_the_decay_of_the_published_tool() -> None:
    state = one(SnipMomentum(), torch.tensor([[10.0]]), scalar(1.0), scalar(1.0), WHOLE)
    assert state.item() == 10.0
    assert SnipMomentum() == SnipMomentum(decay=0.9)


@pytest.mark.parametrize("pattern", [Block(2, 2), Block(2, 1), Block("channel", 1), Block(1, "channel")])
@given(st.lists(st.lists(st.integers(0, 100), min_size=8, max_size=8), min_size=1, max_size=8))
@examples(50)
def test_momentum_of_units_is_units_of_momentum(pattern: Block, history: list[list[int]]) -> None:
    # Reducing inside the recurrence, as is done, equals reducing its result for a mean.
    criterion, ones = SnipMomentum(), torch.ones(4, 1, 2)
    whole = pooled = None
    for step in history:
        gradient = torch.tensor(step, dtype=torch.float32).reshape(4, 1, 2)
        pooled = one(criterion, pooled, ones, gradient, pattern)
        whole = one(criterion, whole, ones, gradient, WHOLE)
    assert whole is not None
    assert pooled is not None
    assert torch.allclose(pattern.to_cells(whole.reshape(4, 1, 2)), pooled)


@pytest.mark.parametrize("pattern", [Block(1, 1), Block(2, 1), Block(1, "channel"), NofM(1, 2)])
def test_score_state_shares_no_memory_with_weight_or_gradient(pattern: Block | NofM) -> None:
    # update_state() may write into what it returned last; that must never be a parameter or its gradient.
    weight, gradient, state = W.clone(), G.clone(), None
    for _ in range(3):
        state = one(SnipMomentum(), state, weight, gradient, pattern)
    assert state is not None
    assert float(state.sum()) > 0
    assert torch.equal(weight, W)
    assert torch.equal(gradient, G)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(SparsityError, match=f"decay={decay}"):
        SnipMomentum(decay=decay)


# One recurrence, three paths -----------------------------------------------------------------------

PATTERNS = [Block(4, 1), Block(3, 1), Block(32, 1), Block(4, 1, "sum"), Block(1, 1), NofM(2, 4), Block(4, 2)]
SHAPES = [(96, 1, 8), (96, 1, 516), (192, 3, 4)]


def history(pattern: Pattern, shape: tuple[int, int, int], steps: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    states: list[list[Tensor]] = []
    state = None
    for _ in range(steps):
        weight, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
        state = SnipMomentum().update_state(state, [weight], [gradient], pattern)
        states.append([state[0].clone()])
    return [step[0] for step in states]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: f"{p.name}-{p.reduce}")
def test_the_faster_path_equals_the_definition(pattern: Block | NofM, shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(7)
    expected = None
    for found in history(pattern, shape):
        weight, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
        cells = pattern.to_cells((weight.double() * gradient.double()).abs())
        expected = cells if expected is None else 0.9 * expected + cells
        assert found.shape == expected.shape
        assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: f"{p.name}-{p.reduce}")
def test_compiled_and_plain_give_the_same_bits(
    pattern: Block | NofM, shape: tuple[int, int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    plain = history(pattern, shape)
    folder = tmp_path_factory.getbasetemp() / "native"
    if not use_compiled(folder):
        pytest.skip("no C compiler here")
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for ours, theirs in zip(history(pattern, shape), plain, strict=True):
                assert torch.equal(ours, theirs)
    finally:
        torch.set_num_threads(1)
        use_compiled(None)


def test_without_a_compiler_pytorch_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not use_compiled(tmp_path / "native")
    assert history(Block(4, 1), (8, 1, 4))


def test_convolutions_and_transposed_weights_take_the_general_path() -> None:
    weight = torch.randn(8, 4, 3, 3)
    view = weight.flatten(2).transpose(1, 2)
    cells = one(Snip(), None, view, view, Block(4, 1))
    assert torch.allclose(cells, Block(4, 1).to_cells(view * view))


def test_steps_beyond_the_horizon_are_not_scored() -> None:
    updates = Exp(warmup=200, frequency=200).over(600)
    horizon = SnipMomentum().horizon
    scored = [t for t in range(600) if (due := updates.next_due(t + 1)) is not None and due - t <= horizon]
    assert len(scored) == 3 * 158
