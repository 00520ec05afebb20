"""`scheduler=threshold`: what goes before the last update has passed the threshold, whatever caps and floors do."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import examples, pruner_of
from torch import Tensor, nn

from hydraprune.sparsity import Block, SoftMovement, Threshold, custom

UNITS, STEPS = 20, 6


class Given(SoftMovement):
    """Soft movement whose scores are the gradients."""

    def update_state(self, state, weights, gradients, pattern):  # type: ignore[no-untyped-def]
        return [pattern.to_cells(gradient.float()) for gradient in gradients]


def layers(count: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(UNITS, 4, bias=False) for _ in range(count))


def scores(draws: list[list[int]]) -> list[Tensor]:
    """Per layer one score for each unit of 4x1, spread over its weights; below -2.2 a unit passes tau=0.1."""
    return [torch.tensor(draw, dtype=torch.float32).expand(4, UNITS).contiguous() for draw in draws]


score = st.lists(st.integers(-6, 6), min_size=UNITS, max_size=UNITS)


@examples(150)
@given(
    draws=st.lists(st.lists(score, min_size=3, max_size=3), min_size=2, max_size=4),
    target=st.sampled_from([0.3, 0.5, 0.8]),
    cap=st.sampled_from([0.85, 0.9, 0.95, 1.0]),
    floor=st.sampled_from([0.0, 0.1, 0.25]),
    scope=st.sampled_from(["global", "local"]),
)
def test_only_units_that_pass_go(draws: list[list[list[int]]], target: float, cap: float, floor: float, scope) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model = layers(3)
    plans = custom(Block(4, 1), target, scope, floor, cap)
    pruner = pruner_of(model, plans, Given(), Threshold(warmup=1, frequency=1), STEPS)
    passed = [torch.zeros(UNITS, dtype=torch.bool) for _ in model]
    for step, draw in enumerate(draws):
        for layer, gradient in zip(model, scores(draw), strict=True):
            layer.weight.grad = gradient
        pruner.observe(step)
        pruner.project(step + 1)
        masks = pruner.masks
        gone = [~masks[f"{i}.weight"][0] if f"{i}.weight" in masks else torch.zeros(UNITS).bool() for i in range(3)]
        passes = [torch.tensor(own) <= -3 for own in draw[:3]]
        for i in range(3):
            passed[i] |= passes[i]
            # A unit that does not pass is pruned only if it was before, when it did.
            assert not bool((gone[i] & ~passed[i]).any()), (step, i)
            assert int(gone[i].sum()) <= int(cap * UNITS + 1e-9)
        for structures, units in pruner.pools:
            assert units.pruned <= units.target
            # And whatever passes goes where no bound holds it.
            open_ = [i for i in range(3) if any(s.name == f"{i}.weight" for s in structures)]
            if floor == 0 and units.pruned < units.target and step == 0:
                for i in open_:
                    assert int(gone[i].sum()) == min(int(passes[i].sum()), int(cap * UNITS + 1e-9))


def test_a_layer_at_its_cap_does_not_make_others_pay() -> None:
    model = layers(2)
    pruner = pruner_of(model, custom(Block(4, 1), 0.6, cap=0.8), Given(), Threshold(warmup=1, frequency=1), STEPS)
    # All units of the first pass, of which 16 may go; two of the second.
    for layer, gradient in zip(model, scores([[-5] * 20, [-5, -5] + [1] * 18]), strict=True):
        layer.weight.grad = gradient
    pruner.observe(0)
    pruner.project(1)
    assert [int((~mask[0]).sum()) for mask in pruner.masks.values()] == [16, 2]


def test_a_floor_reserves_units_and_prunes_none_for_that() -> None:
    model = layers(2)
    pruner = pruner_of(model, custom(Block(4, 1), 0.5, floor=0.4), Given(), Threshold(warmup=1, frequency=1), STEPS)
    # The floors reserve 8 units in each layer, which leaves 4 of 20 beyond them.
    for layer, gradient in zip(model, scores([[-5] * 18 + [1, 1], [1] * 20]), strict=True):
        layer.weight.grad = gradient
    pruner.observe(0)
    pruner.project(1)
    assert [int((~mask[0]).sum()) for mask in pruner.masks.values()] == [12, 0]
