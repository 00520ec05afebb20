"""Parity: the masks that the published tool makes, step by step, on a small fixed problem.

The reference is in `../shared/parity` beside the repository, or in the folder that HYDRAPRUNE_PARITY names.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from parity_helpers import CRITERIA, RAMPS
from sparsity_helpers import PLAIN
from torch import Tensor, nn

from hydraprune.sparsity import OneShot, Plans, Pruner, Schedule, attach, block, n_of_m, zeros_of

np = pytest.importorskip("numpy")

FOLDER = Path(os.environ.get("HYDRAPRUNE_PARITY") or Path(__file__).resolve().parents[3] / "shared" / "parity")
INDEX: dict[str, Any] = {}
if (FOLDER / "index.json").is_file():
    INDEX = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
CASES: dict[str, Any] = INDEX.get("cases", {})
LAYERS = ("fc1", "fc2", "fc3")

needs_reference = pytest.mark.skipif(not CASES, reason=f"no reference masks in {FOLDER}; set HYDRAPRUNE_PARITY")


def plans_of_config(config: dict[str, Any], **amounts: float) -> Plans:
    """Our words for a reference's config. Its N:M counts the weights removed, ours those kept."""
    selection = {
        "target_sparsity": config["target_sparsity"],
        "scope": config["pruning_scope"],
        "floor": config["min_sparsity_ratio_per_op"],
        "cap": config["max_sparsity_ratio_per_op"],
        **amounts,
    }
    pattern = config["pattern"]
    if ":" in pattern:
        removed, of = map(int, pattern.split(":"))
        return n_of_m(of - removed, of, **selection)
    rows, cols = (side if side == "channel" else int(side) for side in pattern.split("x"))
    return block(rows, cols, **selection)


def schedule_of(config: dict[str, Any], steps: int) -> Schedule:
    start, end = config["start_step"], config["end_step"]
    if start == end:
        return OneShot(warmup=start)
    return RAMPS[config["sparsity_decay_type"]](start, steps - end, config["pruning_frequency"])


class Replay:
    """A training with recorded weights and gradients, and plain SGD."""

    def __init__(self, config: dict[str, Any], **amounts: float) -> None:
        self.inputs = np.load(FOLDER / "inputs.npz")
        self.steps: int = INDEX["steps"]
        self.model = nn.ModuleDict()
        for name in LAYERS:
            weight = torch.tensor(self.inputs[f"weight.{name}"])
            self.model[name] = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            self.model[name].weight.data = weight
        plans = plans_of_config(config, **amounts)
        (plan,) = plans.parts.values()
        plan = plan.completed(CRITERIA[config["pruning_type"]], schedule_of(config, self.steps))
        self.pruner: Pruner
        (self.pruner,) = attach(self.model, {plans.name: plan}, PLAIN, self.steps)

    def run(self) -> list[dict[str, Tensor]]:
        """The masks in force at every step, by layer."""
        optimizer = torch.optim.SGD(self.model.parameters(), lr=INDEX["lr"])
        gradients = {name: torch.tensor(self.inputs[f"grad.{name}"]) for name in LAYERS}
        in_force = []
        self.pruner.project(0)
        for step in range(self.steps):
            masks = self.pruner.masks
            in_force.append(
                {
                    name: masks.get(f"{name}.weight", torch.ones_like(layer.weight, dtype=torch.bool))
                    for name, layer in self.model.items()
                }
            )
            for name, layer in self.model.items():
                assert not bool((layer.weight[~in_force[-1][name]] != 0).any())
                layer.weight.grad = gradients[name][step].clone()
            self.pruner.observe(step)
            optimizer.step()
            self.pruner.project(step + 1)
        return in_force


@needs_reference
def test_there_are_at_least_28_cases() -> None:
    assert len(CASES) >= 28
    assert all((FOLDER / f"{case}.npz").is_file() for case in CASES)


@needs_reference
@pytest.mark.parametrize("case", CASES or ["absent"])
def test_masks_and_weights_agree(case: str) -> None:
    replay = Replay(CASES[case]["config"])
    in_force = replay.run()
    reference = np.load(FOLDER / f"{case}.npz")
    for name in LAYERS:
        masks = torch.tensor(reference[f"mask.{name}"])
        assert len(masks) == len(in_force)
        differing = [step for step, ours in enumerate(in_force) if not torch.equal(ours[name], masks[step])]
        assert differing == [], f"masks of {name} differ"
        final = torch.tensor(reference[f"final_weight.{name}"])
        torch.testing.assert_close(replay.model[name].weight.data, final, rtol=0, atol=1e-6)


@needs_reference
def test_a_floor_that_binds_is_a_listed_difference() -> None:
    """The published floor never raises a layer. Ours is hard at the last update, and binds as late as it can."""
    config = CASES["4x1_global_snip_momentum_min05"]["config"]
    free = Replay(config, floor=0.0).run()
    replay = Replay(config, floor=0.85)
    bound = replay.run()

    def blocks(masks: dict[str, Tensor]) -> list[int]:
        return [zeros_of(masks[name]) // 4 for name in LAYERS]

    sizes = [layer.weight.numel() // 4 for layer in replay.model.values()]
    floors = [n * 85 // 100 for n in sizes]
    free_end, bound_end = blocks(free[-1]), blocks(bound[-1])
    # Without a floor one layer ends below it; with it that layer ends on it, and the total is the same.
    below = [i for i, n in enumerate(free_end) if n < floors[i]]
    assert below == [2]
    assert [bound_end[i] for i in below] == [floors[i] for i in below]
    assert all(n >= floor for n, floor in zip(bound_end, floors, strict=True))
    assert sum(bound_end) == sum(free_end) == sum(sizes) * 9 // 10
    # Totals agree at every step, and the first updates are the same: nothing is promised away yet.
    assert [sum(blocks(masks)) for masks in bound] == [sum(blocks(masks)) for masks in free]
    first = next(step for step, masks in enumerate(free) if sum(blocks(masks)))
    assert all(torch.equal(free[first][name], bound[first][name]) for name in LAYERS)
    # Masks only grow, floor or not.
    for before, now in pairwise(bound):
        assert all(not bool((now[name] & ~before[name]).any()) for name in LAYERS)


@needs_reference
def test_a_cap_that_binds() -> None:
    config = CASES["4x1_global_snip_momentum"]["config"]
    replay = Replay(config, cap=0.92)
    masks = replay.run()[-1]
    sizes = [layer.weight.numel() // 4 for layer in replay.model.values()]
    pruned = [zeros_of(masks[name]) // 4 for name in LAYERS]
    assert pruned[0] == sizes[0] * 92 // 100
    assert all(n <= size * 92 // 100 for n, size in zip(pruned, sizes, strict=True))
    assert sum(pruned) == sum(sizes) * 9 // 10
