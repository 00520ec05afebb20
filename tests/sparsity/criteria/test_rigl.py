"""RigL against its algorithm in numpy."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from criteria_helpers import problem, pruner_on_layers
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import examples, linear

from hydraprune.sparsity import Block, Cubic, Hold, Rigl, SparsityError, block, n_of_m
from hydraprune.sparsity.pruners.regrowth import exchange


def algorithm_1(weight: np.ndarray, gradient: np.ndarray, keep: np.ndarray, fraction: float) -> np.ndarray:
    """The mask after one update: Evci et al. 2020, algorithm 1, flat arrays."""
    count = int(fraction * keep.sum())
    living = np.flatnonzero(keep)
    dropped = living[np.argsort(np.abs(weight[living]), kind="stable")[:count]]
    rest = np.setdiff1d(np.arange(len(keep)), np.setdiff1d(living, dropped))
    grown = rest[np.argsort(-np.abs(gradient[rest]), kind="stable")[:count]]
    after = keep.copy()
    after[dropped] = False
    after[grown] = True
    return after


def test_rigl_is_algorithm_1() -> None:
    weight, inputs, targets = problem()
    layer = linear(weight)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.05)
    pruner = pruner_on_layers([layer], block(1, 1, 0.75), Rigl(fraction=0.4), Hold(warmup=2, frequency=2), steps=12)
    keep, moved = None, 0
    for step in range(12):
        optimizer.zero_grad()
        (layer(inputs) - targets).square().mean().backward()
        pruner.observe(step)
        optimizer.step()
        moments = {key: value.clone() for key, value in optimizer.state[layer.weight].items()}
        if keep is not None:
            # What the optimizer moved off zero is under the mask, and is no living weight.
            layer.weight.data *= torch.tensor(keep).reshape(8, 12)
        before = layer.weight.detach().clone()
        old = np.ones(96, dtype=bool) if keep is None else keep
        assert pruner.project(step + 1, optimizer) == (step % 2 == 1)
        if step % 2 == 0:
            continue
        magnitudes, gradient = before.flatten().numpy(), layer.weight.grad.flatten().numpy()  # type: ignore[union-attr]
        if keep is None:
            old = np.zeros(96, dtype=bool)
            old[np.argsort(np.abs(magnitudes), kind="stable")[72:]] = True
        fraction = 0.4 / 2 * (1 + math.cos(math.pi * (step - 1) / 10))
        expected = algorithm_1(magnitudes, gradient, old, fraction)
        found = pruner.masks["0.weight"]
        assert found.flatten().tolist() == expected.tolist()
        assert int(found.sum()) == 24
        after = optimizer.state[layer.weight]
        if keep is not None:
            back = found & ~torch.tensor(keep).reshape(8, 12)
            moved += int(back.sum())
            # A weight that returns starts from zero, and the optimizer has forgotten it; others are as they were.
            assert bool((layer.weight[back] == 0).all())
            for key in ("exp_avg", "exp_avg_sq"):
                assert bool((after[key][back] == 0).all())
                assert torch.equal(after[key][~back], moments[key][~back])
                assert not bool(back.any()) or bool((moments[key][back] != 0).all())
        keep = found.flatten().numpy().copy()
    assert moved > 2


def test_rigl_exchanges_whole_blocks() -> None:
    weight, inputs, targets = problem()
    layer = linear(weight)
    pruner = pruner_on_layers([layer], block(4, 1, 0.5), Rigl(), Hold(warmup=1, frequency=1), steps=6)
    masks = []
    for step in range(6):
        layer.zero_grad()
        (layer(inputs) - targets).square().mean().backward()
        pruner.observe(step)
        layer.weight.data -= 0.1 * layer.weight.grad  # type: ignore[operator]
        pruner.project(step + 1)
        masks.append(pruner.masks["0.weight"])
        assert Block(4, 1).legal(masks[-1].unsqueeze(1))
        assert int(masks[-1].sum()) == 48
    assert any(bool((now & ~before).any()) for before, now in pairwise(masks))


def test_rigl_under_a_growing_schedule_prunes_and_regrows() -> None:
    layer = linear(problem()[0])
    pruner = pruner_on_layers([layer], block(1, 1, 0.75), Rigl(), Cubic(warmup=1, frequency=1), steps=16)
    masks = [torch.ones(8, 12, dtype=torch.bool)]
    for step in range(16):
        _, inputs, targets = problem(step)
        layer.zero_grad()
        (layer(inputs) - targets).square().mean().backward()
        pruner.observe(step)
        layer.weight.data -= 0.1 * layer.weight.grad  # type: ignore[operator]
        pruner.project(step + 1)
        masks.append(pruner.masks.get("0.weight", masks[0]))
    counts = [int((~mask).sum()) for mask in masks]
    assert counts == sorted(counts)
    assert counts[-1] == 72
    assert any(bool((now & ~before).any()) for before, now in pairwise(masks))


def test_rigl_refuses_groups_that_are_pruned_alike() -> None:
    with pytest.raises(SparsityError, match=r"2:4.*block or channel pattern, or pruner=sr_ste"):
        pruner_on_layers([linear(torch.rand(4, 4))], n_of_m(2, 4), Rigl(), Hold(warmup=1))


def exchanged(keep: np.ndarray, weight: np.ndarray, gradient: np.ndarray, share: float) -> np.ndarray:
    """What is kept after an exchange."""
    costs, growth = (torch.tensor(values, dtype=torch.float32) for values in (weight, gradient))
    return (~exchange(torch.tensor(~keep), costs, growth, share)).numpy()


@examples(200)
@given(
    units=st.integers(4, 60),
    pruned=st.floats(0.02, 0.9),
    share=st.floats(0.01, 0.6),
    silent=st.floats(0, 1),
    seed=st.integers(0, 9999),
)
def test_an_exchange_is_of_the_full_share_at_any_sparsity(
    units: int, pruned: float, share: float, silent: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    weight, gradient = generator.permutation(units) + 1.0, generator.permutation(units) + 1.0
    keep = generator.random(units) >= pruned
    weight[~keep] = 0.0
    after = exchanged(keep, weight, gradient, share)
    assert after.tolist() == algorithm_1(weight, gradient, keep, share).tolist()
    # Where a gradient is zero, a pruned unit would come back as zero: one that was just pruned stays instead.
    gradient[generator.random(units) < silent] = 0.0
    after = exchanged(keep, weight, gradient, share)
    assert after.sum() == keep.sum()
    assert not ((after & ~keep) & (gradient == 0)).any()
