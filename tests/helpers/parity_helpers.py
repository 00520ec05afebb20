"""Problems for the sparsity core and for the slow reference, and when the two must agree.

Every problem is random and continuous, so that scores do not tie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from reference import Mask, Method, Reference, decimal
from sparsity_helpers import PLAIN
from torch import nn

from hydraprune.sparsity import (
    Cos,
    Criterion,
    Cube,
    Exp,
    Gradient,
    Linear,
    Magnitude,
    OneShot,
    Plans,
    Pruner,
    Schedule,
    Snip,
    SnipMomentum,
    attach,
    block,
    n_of_m,
)

CRITERIA: dict[str, Criterion] = {
    "magnitude": Magnitude(),
    "gradient": Gradient(),
    "snip": Snip(),
    "snip_momentum": SnipMomentum(),
}
RAMPS: dict[str, type[Schedule]] = {"exp": Exp, "linear": Linear, "cos": Cos, "cube": Cube}
LR = 0.1
# Relative. Two scores that lie closer may be ordered differently in float32.
UNCLEAR = 2e-5

Matrices = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Problem:
    """Layers, their random weights, and a random gradient for every step.

    Args:
        shapes: of the weights as torch has them; convolutions have three or four sides.
        scales: size of each layer's weights and gradients; unlike ones make caps bind.
        drift: the factor by which each layer's gradients grow from step to step.
    """

    shapes: tuple[tuple[int, ...], ...] = ((16, 32), (32, 16), (16, 16))
    steps: int = 18
    seed: int = 0
    scales: tuple[float, ...] = ()
    drift: tuple[float, ...] = ()

    def weights(self) -> Matrices:
        return self._draw(np.random.default_rng([self.seed, 0]), 0.1)

    def gradients(self, step: int) -> Matrices:
        drawn = self._draw(np.random.default_rng([self.seed, 1, step]), 0.05)
        drift = self.drift or (1.0,) * len(self.shapes)
        return {name: gradient * np.float32(d**step) for (name, gradient), d in zip(drawn.items(), drift, strict=True)}

    def _draw(self, random: np.random.Generator, size: float) -> Matrices:
        scales = self.scales or (1.0,) * len(self.shapes)
        return {
            f"layer{i}": random.normal(0, size * scale, shape).astype(np.float32)
            for i, (shape, scale) in enumerate(zip(self.shapes, scales, strict=True))
        }


def view(weight: NDArray[np.generic]) -> NDArray[np.generic]:
    """The weight matrix of a linear or convolution weight: output rows; kernel positions, then inputs."""
    return np.moveaxis(weight, 1, -1).reshape(len(weight), -1)


def views(weights: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    return {name: view(weight) for name, weight in weights.items()}


def module(weight: NDArray[np.float32]) -> nn.Module:
    kinds = {2: nn.Linear, 3: nn.Conv1d, 4: nn.Conv2d}
    out, into, *kernel = weight.shape
    layer = kinds[weight.ndim](into, out, *([tuple(kernel)] if kernel else []), bias=False)
    layer.weight.data = torch.tensor(weight)
    return layer


def plans_of(method: Method) -> Plans:
    """Our plans for a method of the reference. Its N:M counts the weights removed, ours those kept."""
    removed, of = method.removed_of
    words = {
        "target_sparsity": method.target,
        "scope": method.scope,
        "floor": method.floor,
        "cap": method.cap,
        "reduce": method.reduce,
    }
    if method.groups:
        return n_of_m(of - removed, of, **words)
    rows, cols = (side if side == "channel" else int(side) for side in method.pattern.split("x"))
    return block(rows, cols, **words)


def schedule_of(method: Method, steps: int) -> Schedule:
    if method.start == method.end:
        return OneShot(warmup=method.start)
    return RAMPS[method.decay](method.start, steps - method.end, method.frequency)


def ours(method: Method, problem: Problem) -> tuple[list[dict[str, Mask]], dict[str, NDArray[np.float32]]]:
    """The masks in force at every step and the weights at the end, as matrices, of our pruner."""
    model = nn.ModuleDict({name: module(weight) for name, weight in problem.weights().items()})
    plans = plans_of(method)
    (plan,) = plans.parts.values()
    plan = plan.completed(CRITERIA[method.criterion], schedule_of(method, problem.steps))
    pruner: Pruner
    (pruner,) = attach(model, {plans.name: plan}, PLAIN, problem.steps)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    in_force = []
    pruner.project(0)
    for step in range(problem.steps):
        made = pruner.masks
        masks = {
            name: made.get(f"{name}.weight", torch.ones_like(layer.weight, dtype=torch.bool))
            for name, layer in model.items()
        }
        in_force.append({name: view(mask.numpy().copy()) for name, mask in masks.items()})
        for name, gradient in problem.gradients(step).items():
            assert not bool((model[name].weight[~masks[name]] != 0).any())
            model[name].weight.grad = torch.tensor(gradient)
        pruner.observe(step)
        optimizer.step()
        pruner.project(step + 1)
    return in_force, {name: view(layer.weight.detach().numpy()) for name, layer in model.items()}


def theirs(method: Method, problem: Problem) -> tuple[Reference, list[dict[str, Mask]]]:
    """The reference after the whole training, and its masks in force at every step."""
    reference = Reference(method, views(problem.weights()))
    in_force = []
    for step in range(problem.steps):
        reference.begin_step(step)
        in_force.append(dict(reference.masks))
        reference.train_step(step, views(problem.gradients(step)), LR)
    # A listed difference: we apply an update that is due after the last step, the reference does not.
    reference.begin_step(problem.steps)
    return reference, in_force


def sizes(reference: Reference) -> list[int]:
    return [units.size for units in reference.units.values()]


def above_floor(reference: Reference) -> bool:
    removed, of = reference.method.removed_of
    floor = decimal(reference.method.floor) * of / removed
    return all(reference.zeros(name) >= floor * units.size for name, units in reference.units.items())


def affordable(reference: Reference) -> bool:
    """Whether the caps let the target be reached, and mean the same as floats and as decimals.

    We refuse a target that they do not allow. A cap of 0.29 is 29 of 100 blocks to us, and 28 where
    `int(100 * 0.29)` is asked.
    """
    method = reference.method
    removed, of = method.removed_of
    share = decimal(method.target) * of / removed
    cap = min(decimal(method.cap), Fraction(removed, of)) * of / removed if method.groups else decimal(method.cap)
    most = [math.floor(size * cap) for size in sizes(reference)]
    if any(n != int(size * method.unit_cap) for n, size in zip(most, sizes(reference), strict=True)):
        return False
    if method.scope == "local":
        return all(math.floor(size * share) <= n for n, size in zip(most, sizes(reference), strict=True))
    return math.floor(sum(sizes(reference)) * share) <= sum(most)


def comparable(reference: Reference) -> bool:
    """Whether a finished reference run is one that ours must reproduce."""
    revives = reference.method.criterion == "gradient"
    return (
        reference.closest > UNCLEAR
        and affordable(reference)
        # A floor that binds is a listed difference. Where weights are revived theirs binds even at 0: an
        # early layer is refused what a later one still holds.
        and above_floor(reference)
        and not reference.gave_back
        # We freeze a layer that reaches its cap, they one that is clipped to it.
        and not (revives and reference.at_cap)
    )


def hold(method: Method, problem: Problem, reference: Reference, expected: Sequence[Mapping[str, Mask]]) -> None:
    """Our pruner makes the reference's masks at every step, and its weights."""
    in_force, weights = ours(method, problem)
    for name, masks in reference.masks.items():
        assert masks.shape == weights[name].shape
        differing = [s for s in range(problem.steps) if not np.array_equal(in_force[s][name], expected[s][name])]
        assert differing == [], f"masks of {name} differ"
        np.testing.assert_allclose(weights[name], reference.weights[name], rtol=0, atol=1e-6)


def agree(method: Method, problem: Problem) -> Reference:
    """`hold` on the first comparable problem of this kind; returns the reference's run."""
    for seed in range(problem.seed, problem.seed + 20):
        seeded = replace(problem, seed=seed)
        reference, expected = theirs(method, seeded)
        if comparable(reference):
            hold(method, seeded, reference, expected)
            assert reference.sparsity() > 0
            return reference
    raise AssertionError("no comparable problem of this kind")
