"""Criteria against computations of another kind: autograd and loops over scalars."""

from __future__ import annotations

import pytest
import torch
from criteria_helpers import BLOCKS, expanded, gradient_of, name, problem, pruner_on_layers, ran
from sparsity_helpers import linear
from torch import Tensor, nn
from torch.nn import functional

from hydraprune.sparsity import (
    Block,
    BlockMask,
    Criterion,
    Fisher,
    Movement,
    NofM,
    OneShot,
    Platon,
    Rigl,
    SoftMovement,
    SparsityError,
    Threshold,
    block,
)
from hydraprune.sparsity.patterns import Reduce


def test_neighbours_and_sums_are_those_of_the_blocks() -> None:
    values = torch.arange(8 * 3 * 12, dtype=torch.float32).reshape(8, 3, 12)
    for pattern in [*BLOCKS, Block(2, "channel"), Block("channel", 2)]:
        sums = Block(pattern.rows, pattern.cols, "sum").to_cells(values)
        assert torch.equal(pattern.sum_cells(values), sums)
        assert torch.equal(pattern.neighbours(values).sum(-1).flatten(), sums.flatten())
    assert torch.equal(NofM(2, 4).neighbours(values)[1, :, 0], values[0, 0, 4:8])


# Block mask ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("pattern", BLOCKS, ids=name)
def test_block_mask_is_the_gradient_of_a_mask(pattern: Block, reduce: Reduce) -> None:
    expected, steps = torch.zeros(()), []
    for seed in range(3):
        weight, inputs, targets = problem(seed)
        mask = torch.ones(pattern.units((8, 1, 12)), requires_grad=True)
        whole = expanded(mask, 8, 12, pattern)
        loss = (functional.linear(inputs, weight * whole) - targets).square().mean()
        (slope,) = torch.autograd.grad(loss, mask)
        expected = 0.9 * expected + slope.abs()
        steps.append((weight, gradient_of(weight, inputs, targets)))
    found, _ = ran(BlockMask(), steps, Block(pattern.rows, pattern.cols, reduce))
    assert torch.allclose(found.flatten(), expected, rtol=1e-4, atol=1e-6)


def test_weights_with_opposite_effects_cancel_out() -> None:
    weight, gradient = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[2.0, 0.5], [-2.0, -0.5]])
    assert ran(BlockMask(), [(weight, gradient)], Block(2, 1))[0].flatten().tolist() == [0, 1]


# Movement -----------------------------------------------------------------------------------------


class _StraightThrough(torch.autograd.Function):
    """Scores -> a mask of the half that is largest; the gradient passes as if it were the identity."""

    @staticmethod
    def forward(ctx: object, scores: Tensor) -> Tensor:
        return (scores >= scores.flatten().median()).to(scores.dtype)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class Masked(nn.Module):
    """A linear layer under a mask of learned scores, as movement pruning trains it."""

    def __init__(self, weight: Tensor, pattern: Block, soft: bool) -> None:
        super().__init__()
        self.layer, self.pattern, self.soft = linear(weight), pattern, soft
        self.scores = nn.Parameter(torch.zeros(pattern.units((*weight.shape[:1], 1, weight.shape[1]))))

    def forward(self, inputs: Tensor) -> Tensor:
        # With all scores at 0 both masks are whole; what is tested is the scores' gradient, mask or no mask.
        mask = _StraightThrough.apply(self.scores) if not self.soft else 1 + self.scores - self.scores.detach()
        rows, columns = self.layer.weight.shape
        return functional.linear(inputs, self.layer.weight * expanded(mask, rows, columns, self.pattern))


@pytest.mark.parametrize("pattern", BLOCKS, ids=name)
def test_movement_is_learned_scores_behind_a_straight_through_mask(pattern: Block) -> None:
    """SGD with a step of 1 on the scores beside weights that train, as long as nothing is masked for good.

    The layer whose weights are observed sees what is pruned as zeros, so its w * g is compared where
    the straight-through mask keeps: there both are the same number.
    """
    weight, inputs, targets = problem()
    model = Masked(weight, pattern, soft=True)
    optimizer = torch.optim.SGD([{"params": [model.scores], "lr": 1.0}, {"params": model.layer.parameters()}], lr=0.05)
    steps = []
    for _ in range(5):
        optimizer.zero_grad()
        (model(inputs) - targets).square().mean().backward()
        assert model.layer.weight.grad is not None
        steps.append((model.layer.weight.detach().clone(), model.layer.weight.grad.clone()))
        optimizer.step()
    for reduce in ("sum", "mean"):
        found, _ = ran(Movement(), steps, Block(pattern.rows, pattern.cols, reduce))
        share = 1 if reduce == "sum" else 96 / pattern.units((8, 1, 12))
        assert torch.allclose(found.flatten() * share, model.scores.detach(), rtol=1e-4, atol=1e-6)
    assert float(model.scores.detach().min()) < 0


def test_where_the_mask_keeps_the_straight_through_gradient_is_w_g() -> None:
    weight, inputs, targets = problem()
    model = Masked(weight, Block(1, 1), soft=False)
    model.scores.data = torch.randn(96, generator=torch.Generator().manual_seed(3))
    keep = (model.scores >= model.scores.median()).reshape(8, 12)
    (model(inputs) - targets).square().mean().backward()
    assert model.scores.grad is not None
    here = weight * keep
    found, _ = ran(Movement(), [(here, gradient_of(here, inputs, targets))], Block(1, 1))
    assert torch.allclose(found[keep], -model.scores.grad.reshape(8, 12)[keep], rtol=1e-4, atol=1e-6)
    # Documented: behind the mask a weight is zero here, so its score does not change.
    assert bool((found[~keep] == 0).all())
    assert bool((model.scores.grad.reshape(8, 12)[~keep] != 0).any())


@pytest.mark.parametrize(("criterion", "keeps"), [(Movement(), 0), (SoftMovement(), 0), (BlockMask(), 2)], ids=name)
def test_movement_counts_the_first_of_many_steps(criterion: Criterion, keeps: int) -> None:
    layer = linear(torch.ones(1, 3))
    pruner = pruner_on_layers([layer], block(1, 1, 0.67), criterion, OneShot(warmup=300), steps=300)
    for step in range(300):
        layer.weight.grad = torch.tensor([[-9.0 * (step == 0), 0.0, 1e-3 * (step > 290)]])
        pruner.observe(step)
        pruner.project(step + 1)
    assert pruner.masks["0.weight"].flatten().nonzero().tolist() == [[keeps]]


def test_movement_refuses_reduce_max() -> None:
    for criterion in (Movement(), SoftMovement()):
        with pytest.raises(SparsityError, match=r"reduce=max: .*mean or sum"):
            pruner_on_layers([linear(torch.rand(4, 4))], block(4, 1, 0.5, reduce="max"), criterion, OneShot(warmup=1))


def test_soft_movement_is_a_gradient_step_on_loss_and_penalty() -> None:
    criterion, state = SoftMovement(rate=3.0, penalty=0.7), None
    scores = torch.zeros(8, 12, requires_grad=True)
    for seed in range(4):
        weight, inputs, targets = problem(seed)
        mask = 1 + scores - scores.detach()
        loss = (functional.linear(inputs, weight * mask) - targets).square().mean() + 0.7 * scores.sigmoid().sum()
        (slope,) = torch.autograd.grad(loss, scores)
        scores = (scores - 3.0 * slope).detach().requires_grad_()
        gradient = gradient_of(weight, inputs, targets)
        state = criterion.update_state(state, [weight.unsqueeze(1)], [gradient.unsqueeze(1)], Block(1, 1))
        assert torch.allclose(state[0], scores.detach(), rtol=1e-4, atol=1e-5)


def test_a_unit_without_gradient_passes_the_threshold_after_the_documented_steps() -> None:
    criterion = SoftMovement()
    zero, state = torch.zeros(1, 1, 1), None
    steps = round(13.3 / (criterion.rate * criterion.penalty))
    passed = []
    for _ in range(2 * steps):
        state = criterion.update_state(state, [zero], [zero], Block(1, 1))
        passed.append(bool(Threshold(tau=0.1).passes(state[0]).all()))
    assert passed.index(True) + 1 == pytest.approx(steps, rel=0.05)
    assert all(passed[passed.index(True) :])


def test_scores_that_sink_are_pruned_before_the_last_update() -> None:
    model = [linear(torch.tensor([[1.0, 1.0, 1.0, 1.0]]))]
    criterion = SoftMovement(rate=1.0, penalty=1.0)
    pruner = pruner_on_layers(model, block(1, 1, 0.75), criterion, Threshold(warmup=1, frequency=1), steps=40)
    pruned = []
    for step in range(40):
        # The loss holds the first up, pushes the second down, and is indifferent to the others.
        model[0].weight.grad = torch.tensor([[-9.0, 9.0, 0.0, 0.0]])
        pruner.observe(step)
        pruner.project(step + 1)
        pruned.append(pruner.zeros)
    assert pruned[:2] == [1, 1]
    assert pruned[12:] == [3] * 28
    assert pruner.masks["0.weight"].tolist() == [[True, False, False, False]]


# PLATON -------------------------------------------------------------------------------------------


def test_platon_step_by_step() -> None:
    steps = [(problem(seed)[0], gradient_of(*problem(seed))) for seed in range(6)]
    found, state = ran(Platon(), steps, Block(4, 1))
    for row in range(2):
        for column in range(12):
            mean = deviation = 0.0
            for weight, gradient in steps:
                places = [(4 * row + i, column) for i in range(4)]
                worth = sum(abs(float(weight[at]) * float(gradient[at])) for at in places) / 4
                mean = 0.85 * mean + 0.15 * worth
                deviation = 0.95 * deviation + 0.05 * abs(worth - mean)
            assert float(found[row, column]) == pytest.approx(mean * deviation, rel=1e-4)
    assert state.shape == Platon().state_shape((8, 1, 12), Block(4, 1)) == (2, 2, 12)


def test_platon_may_revive_a_unit_that_was_steady() -> None:
    """A steady weight is certain and may go; once masked it is a surprise, and its score falls more slowly."""
    state = [torch.tensor([[[1.0, 10.0]], [[1.0, 0.09]]])]
    none = torch.zeros(1, 1, 2)
    before = Platon().scores(state, [none], Block(1, 1))[0]
    after = Platon().scores(Platon().update_state(state, [none], [none], Block(1, 1)), [none], Block(1, 1))[0]
    assert before.flatten().tolist() == pytest.approx([1, 0.9])
    assert after.flatten().tolist() == pytest.approx([0.85 * 0.9925, 8.5 * (0.0855 + 0.425)])


# Arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("criterion", "key", "value", "range_"),
    [
        (BlockMask, "decay", 1.0, "at least 0 and below 1"),
        (SoftMovement, "rate", 0.0, "above 0"),
        (SoftMovement, "penalty", -1e-3, "at least 0"),
        (Platon, "beta1", 1.0, "at least 0 and below 1"),
        (Platon, "beta2", -0.5, "at least 0 and below 1"),
        (Platon, "beta2", float("nan"), "at least 0 and below 1"),
        (Fisher, "decay", 1.0, "at least 0 and below 1"),
        (Fisher, "damp", 0.0, "above 0"),
        (Fisher, "size", 0, "from 1 to 256"),
        (Fisher, "size", 2.5, "from 1 to 256"),
        (Rigl, "fraction", 0.0, "above 0 and below 1"),
        (Rigl, "fraction", 1.0, "above 0 and below 1"),
        (Rigl, "fraction", "half", "above 0 and below 1"),
        (Rigl, "fraction", True, "above 0 and below 1"),
    ],
)
def test_a_value_out_of_range_is_refused(criterion: type[Criterion], key: str, value: object, range_: str) -> None:
    with pytest.raises(SparsityError, match=f"^{key}={value}: must be .*{range_}"):
        criterion(**{key: value})
