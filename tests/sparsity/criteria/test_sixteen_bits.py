"""Scores of weights and gradients in 16 bits: those of the same numbers in 32 bits; and sums that no type holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from criteria_helpers import pruner_on_layers
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import examples, mlp, pruner_of
from torch import Tensor, nn

from hydraprune.sparsity import (
    Block,
    BlockMask,
    Criterion,
    Family,
    Fisher,
    Gradient,
    Magnitude,
    Movement,
    NofM,
    OneShot,
    Platon,
    Rigl,
    Snip,
    SnipMomentum,
    SoftMovement,
    attach,
    custom,
)
from hydraprune.sparsity.posttraining import RetrainFree
from hydraprune.sparsity.saliency_kernels import accumulate

CRITERIA: list[Criterion] = [
    Magnitude(),
    Gradient(),
    Snip(),
    SnipMomentum(),
    SnipMomentum(0.5),
    BlockMask(),
    Fisher(),
    Movement(),
    SoftMovement(),
    Platon(),
    Rigl(),
]
PATTERNS = [Block(1, 1), Block(4, 1), Block(2, 2, "max"), Block(1, "channel", "sum"), NofM(2, 4)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@examples(60)
@given(
    criterion=st.sampled_from(CRITERIA),
    pattern=st.sampled_from(PATTERNS),
    weight_size=st.sampled_from([1e-4, 1e-2, 1.0, 100.0]),
    gradient_size=st.sampled_from([1e-6, 1e-4, 1e-2, 1.0, 1000.0]),
    seed=st.integers(0, 99),
)
def test_scores_are_those_of_the_same_numbers_in_32_bits(
    dtype: torch.dtype, criterion: Criterion, pattern: Any, weight_size: float, gradient_size: float, seed: int
) -> None:
    if isinstance(criterion, Rigl) and isinstance(pattern, NofM):
        return
    generator = torch.Generator().manual_seed(seed)
    states: dict[torch.dtype, Any] = {dtype: None, torch.float32: None}
    for _ in range(3):
        weight = (torch.randn(8, 1, 8, generator=generator) * weight_size).to(dtype)
        gradient = (torch.randn(8, 1, 8, generator=generator) * gradient_size).to(dtype)
        for kind in states:
            args = [weight.to(kind)], [gradient.to(kind)] if criterion.horizon else None
            states[kind] = criterion.update_state(states[kind], *args, pattern)
    found, expected = (criterion.scores(states[kind], [weight.to(kind)], pattern)[0] for kind in states)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("criterion", [Snip(), SnipMomentum(), Platon(beta1=0.5, beta2=0.9)], ids=lambda c: c.name)
def test_the_first_units_do_not_go_where_products_are_small(criterion: Criterion, dtype: torch.dtype) -> None:
    # Products of 1e-5 and 1e-4 are zero in float16, so all units tied and the first ones went.
    weight = torch.full((8, 8), 1e-5)
    weight[4:] = 1e-6
    layer = nn.Linear(8, 8, bias=False)
    layer.weight.data = weight.to(dtype)
    layer = layer.to(dtype)
    pruner = pruner_of(layer, custom(Block(4, 1), 0.5), criterion, OneShot(warmup=2), 4)
    for step in range(2):
        layer.weight.grad = torch.full((8, 8), 1e-4 * (step + 1), dtype=dtype)
        pruner.observe(step)
        pruner.project(step + 1)
    assert bool((layer.weight[4:] == 0).all())
    assert bool((layer.weight[:4] != 0).all())


@pytest.mark.parametrize("mixed", [(torch.float16, torch.float32), (torch.float32, torch.bfloat16)])
def test_weights_and_gradients_may_differ_in_type(mixed: tuple[torch.dtype, torch.dtype]) -> None:
    weight, gradient = (torch.full((4, 1, 4), 1e-5, dtype=dtype) for dtype in mixed)
    (cells,) = accumulate(None, [weight], [gradient], Block(4, 1), 0.0)
    assert bool((cells > 5e-11).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_post_training_by_gradients_sums_in_more_than_16_bits(dtype: torch.dtype) -> None:
    layer = nn.Linear(8, 8, bias=False).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(1, 2, 8).unsqueeze(1).expand(8, 8) * 1e-3)

    def calibration(count: int) -> Any:
        for _ in range(count):
            yield (layer(torch.full((1, 8), 1e-5, dtype=dtype)) * 1.0).float().sum()

    (plan,) = custom(Block(1, "channel"), 0.5).parts.values()

    made = plan.completed(RetrainFree(batches=1), OneShot())
    (pruner,) = attach(layer, {"p": made}, Family("f"), 1, calibration=calibration)
    pruner.project(0)
    assert (layer.weight == 0).all(1).tolist() == [True] * 4 + [False] * 4


# Sums ---------------------------------------------------------------------------------------------


def scored(gradients: list[Tensor], dtype: torch.dtype) -> bool:
    """Whether a step with these gradients counts."""
    model = mlp().to(dtype)
    pruner = pruner_on_layers([model[0], model[2]], custom(Block(4, 1), 0.5), SnipMomentum(), OneShot(warmup=5), 9)
    for weight, gradient in zip(pruner.weights, gradients, strict=True):
        weight.parameter.grad = gradient.to(dtype)
    pruner.observe(0)
    return len(pruner.state_dict()["memory"]) == 2


@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        (torch.float16, 6e4),
        (torch.float16, 1000.0),
        (torch.bfloat16, 3e38),
        (torch.float32, 3e38),
        (torch.float64, 1e308),
    ],
)
def test_a_sum_that_overflows_is_of_finite_numbers(dtype: torch.dtype, number: float) -> None:
    ones = [torch.full((20, 20), number, dtype=torch.float64), torch.full((40, 20), number, dtype=torch.float64)]
    assert scored(ones, dtype)
    for odd in (float("inf"), float("-inf"), float("nan")):
        for index in range(2):
            bad = [one.clone() for one in ones]
            bad[index][3, 3] = odd
            assert not scored(bad, dtype), (odd, index)
