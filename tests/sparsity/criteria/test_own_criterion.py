"""Criteria, schedules and methods of a user's own: one class with one method each."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from criteria_helpers import gradient_of, problem
from sparsity_helpers import PLAIN, mlp, train
from torch import Tensor

from hydraprune.sparsity import (
    ALL_STEPS,
    Block,
    Criterion,
    Exp,
    Magnitude,
    Method,
    NofM,
    Pattern,
    Pruner,
    PrunerFactory,
    Schedule,
    Snip,
    SnipMomentum,
    SparsityError,
    attach,
    block,
    check_number,
    steps_remembered,
)

STEPS = 16
RAMP = Exp(warmup=4, cooldown=3, frequency=3)


@dataclass(frozen=True)
class Taylor(Criterion):
    """(w * g)^2, averaged over steps. Molchanov et al. 2017, arXiv:1611.06440."""

    decay: float = 0.5

    def __post_init__(self) -> None:
        check_number("decay", self.decay, 0, 1, from_low=True)

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return (weight * gradient).square()


class Random(Criterion):
    """A fixed random order."""

    uses_gradient = False

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return torch.rand(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))


class SameAsSnip(Criterion):
    """`Snip` without its faster way."""

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return (weight * gradient).abs()


class Smooth(Schedule):
    """Slow at both ends."""

    def progress(self, x: float) -> float:
        return x * x * (3 - 2 * x)


class Nothing(Method):
    """A method that makes a pruner of its own kind."""

    def make_pruner(self, factory: PrunerFactory) -> Pruner:
        return factory.gradual(Magnitude())


@pytest.mark.parametrize("pattern", [Block(4, 1), Block(1, "channel"), NofM(2, 4)], ids=lambda p: p.name)
def test_scores_are_pooled_and_decayed(pattern: Pattern) -> None:
    weight, inputs, targets = problem()
    first, second = gradient_of(weight, inputs, targets), gradient_of(weight, inputs + 1, targets)
    state = None
    for gradient in (first, second):
        state = Taylor().update_state(state, [weight.unsqueeze(1)], [gradient.unsqueeze(1)], pattern)
    assert state is not None
    expected = pattern.to_cells((0.5 * (weight * first) ** 2 + (weight * second) ** 2).unsqueeze(1))
    assert torch.allclose(state[0], expected)
    assert Taylor().scores(state, [weight.unsqueeze(1)], pattern)[0] is state[0]
    assert state[0].shape == Taylor().state_shape((8, 1, 12), pattern)


@pytest.mark.parametrize("criterion", [Taylor(), Taylor(0), Random(), SameAsSnip()], ids=lambda c: c.name)
def test_a_criterion_of_one_method_prunes_and_resumes(criterion: Criterion) -> None:
    (plan,) = block(4, 1, 0.5).parts.values()
    plan = plan.completed(criterion, RAMP)
    whole, halves = mlp(), mlp()
    (one,), (two,) = (attach(model, {"own": plan}, PLAIN, STEPS) for model in (whole, halves))
    train(whole, [one], range(STEPS))
    assert one.zeros == one.total // 2
    optimizer = torch.optim.AdamW(halves.parameters(), lr=1e-2, weight_decay=0.1)
    train(halves, [two], range(9), optimizer)
    (three,) = attach(halves, {"own": plan}, PLAIN, STEPS)
    three.load_state_dict(two.state_dict())
    train(halves, [three], range(9, STEPS), optimizer)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


def test_the_base_class_scores_as_the_faster_ways_do() -> None:
    weight, inputs, targets = problem()
    views = [weight.unsqueeze(1)], [gradient_of(weight, inputs, targets).unsqueeze(1)]
    for pattern in (Block(4, 1), Block(1, "channel"), NofM(2, 4)):
        (plain,), (fast,) = (c.update_state(None, *views, pattern) for c in (SameAsSnip(), Snip()))
        assert torch.allclose(plain, fast)


def test_how_many_steps_matter_follows_from_the_decay() -> None:
    assert Taylor(0).horizon == 1
    assert Taylor(0.5).horizon == steps_remembered(0.5) == 24
    assert Random().horizon == 0
    assert SnipMomentum(0.9).horizon == steps_remembered(0.9) == 158
    assert steps_remembered(1.0) == ALL_STEPS


def test_a_criterion_without_a_score_says_so() -> None:
    class Unfinished(Criterion):
        pass

    with pytest.raises(NotImplementedError, match="Unfinished has neither a score nor an update_state"):
        Unfinished().update_state(None, [torch.ones(1, 1, 1)], [torch.ones(1, 1, 1)], Block(1, 1))


def test_a_number_out_of_range_is_refused_by_its_key() -> None:
    with pytest.raises(SparsityError) as error:
        Taylor(1.0)
    assert (error.value.key, error.value.value) == ("decay", 1.0)
    assert str(error.value) == "decay=1.0: must be a number at least 0 and below 1"


def test_a_schedule_of_one_method() -> None:
    (plan,) = block(4, 1, 0.6).parts.values()
    model, zeros = mlp(), []
    (pruner,) = attach(model, {"own": plan.completed(Magnitude(), Smooth(4, 4, 2))}, PLAIN, STEPS)
    train(model, [pruner], range(STEPS), after=lambda step: zeros.append(pruner.zeros / pruner.total))
    at = [0.6 * x * x * (3 - 2 * x) for x in (0, 0.25, 0.5, 0.75, 1)]
    assert zeros[4::2][:5] == pytest.approx(at, abs=4 / 1200)


def test_a_method_makes_its_own_pruner() -> None:
    (plan,) = block(4, 1, 0.5).parts.values()
    model = mlp()
    (pruner,) = attach(model, {"own": plan.completed(Nothing(), Exp(warmup=0, frequency=1))}, PLAIN, 1)
    pruner.project(1)
    assert pruner.zeros == pruner.total // 2
    assert Nothing().name == "nothing"
