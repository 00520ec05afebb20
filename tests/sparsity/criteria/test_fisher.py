"""The Fisher score against dense linear algebra: a quadratic minimised without the unit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from criteria_helpers import expanded, gradient_of, name, problem, ran
from torch import Tensor

from hydraprune.sparsity import Block, Fisher, NofM, Pattern, SparsityError
from hydraprune.sparsity.criteria.fisher import _factor


def loss_without(fisher: Tensor, weight: Tensor, gone: Tensor, pinned: Tensor) -> float:
    """The least 1/2 d' F d over the changes d that take the weights `gone` to zero and leave those `pinned`."""
    fixed = gone | pinned
    change = torch.where(gone, -weight, torch.zeros_like(weight))
    free = ~fixed
    if bool(free.any()):
        change[free] = torch.linalg.solve(fisher[free][:, free], -fisher[free] @ change)
    return float(change @ fisher @ change) / 2


def fisher_of(gradients: Sequence[Tensor], decay: float, damp: float) -> Tensor:
    """The whole matrix over all weights of a layer, float64."""
    average = None
    for gradient in gradients:
        flat = gradient.double().flatten()
        outer = flat[:, None] * flat[None, :]
        average = outer if average is None else decay * average + (1 - decay) * outer
    assert average is not None
    return average + damp * torch.eye(len(average), dtype=torch.float64)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("pattern", "size", "width"),
    [
        (Block(4, 1), 12, 3),  # blocks of 4 x 3 weights
        (Block(4, 1), 16, 4),
        (Block(4, 1), 4, 1),
        (Block(1, 4), 12, 12),
        (Block(2, 2), 8, 4),
        (Block(1, 1), 5, 4),  # 4 is the largest that divides 12
        (Block(1, "channel"), 12, 12),
        (NofM(2, 4), 16, 4),
        (NofM(1, 6), 4, 3),  # half a group
    ],
    ids=lambda v: v.name if isinstance(v, Block | NofM) else str(v),
)
def test_fisher_is_the_minimum_of_the_quadratic(pattern: Pattern, size: int, width: int, masked: bool) -> None:
    criterion = Fisher(decay=0.8, damp=1e-3, size=size)
    steps = [(problem(seed)[0], gradient_of(*problem(seed))) for seed in range(9)]
    weight = steps[-1][0]
    height, cell_width = (1, 1) if isinstance(pattern, NofM) else (pattern.rows, pattern.cols)
    cell_width = 12 if cell_width == "channel" else cell_width
    assert isinstance(height, int)
    assert isinstance(cell_width, int)
    if masked:  # a neighbour of the first unit is pruned
        weight[:height, cell_width : 2 * cell_width] = 0
    found, state = ran(criterion, steps, pattern)
    assert (
        state.shape
        == criterion.state_shape((8, 1, 12), pattern)
        == (96 // (height * width), height * width, height * width)
    )
    whole = fisher_of([gradient for _, gradient in steps], 0.8, 1e-3)
    places = torch.arange(96).reshape(8, 12)
    cells = found.reshape(8 // height, 12 // cell_width)
    for line in range(8 // height):
        for across in range(12 // cell_width):
            start = across * cell_width // width * width
            inside = places[line * height : (line + 1) * height, start : start + width].flatten()
            unit = places[
                line * height : (line + 1) * height, across * cell_width : (across + 1) * cell_width
            ].flatten()
            part, values = whole[inside][:, inside], weight.double().flatten()[inside]
            expected = loss_without(part, values, torch.isin(inside, unit), values == 0)
            assert float(cells[line, across]) == pytest.approx(expected, rel=1e-4, abs=1e-9), (line, across)


@pytest.mark.parametrize("pattern", [Block(1, "channel"), Block("channel", 1), Block(4, 4)], ids=name)
def test_a_large_unit_is_scored_along_its_weights(pattern: Block) -> None:
    criterion = Fisher(decay=0.8, damp=1e-2, size=7)
    weight = problem()[0]
    steps = [(weight, gradient_of(*problem(seed))) for seed in range(5)]
    found, state = ran(criterion, steps, pattern)
    assert state.shape == criterion.state_shape((8, 1, 12), pattern) == pattern.to_cells(weight.unsqueeze(1)).shape
    whole = fisher_of([gradient for _, gradient in steps], 0.8, 1e-2)
    for unit, score in enumerate(found.flatten().tolist()):
        chosen = torch.zeros(pattern.units((8, 1, 12)))
        chosen[unit] = 1
        direction = (weight * expanded(chosen, 8, 12, pattern)).double().flatten()
        assert score == pytest.approx(float(direction @ whole @ direction) / 2, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_fisher_handles_a_matrix_of_one_gradient(scale: float) -> None:
    weight, gradient = problem()[0], gradient_of(*problem()) * scale
    for pattern in (Block(4, 1), NofM(2, 4)):
        found, _ = ran(Fisher(), [(weight, gradient)], pattern)
        assert bool(found.isfinite().all())
        assert bool((found >= 0).all())
    # Many blocks of rank one, far below whose numbers the damping lies.
    generator = torch.Generator().manual_seed(0)
    wide, slopes = (torch.randn(64, 256, generator=generator) for _ in range(2))
    losses = ran(Fisher(), [(wide, slopes * scale)], Block(4, 1))[0]
    # No more than if the loss were curved everywhere as it is most.
    most = ((slopes * scale).square().sum() + 1) * Block(4, 1, "sum").to_cells(wide.square().unsqueeze(1))
    assert bool((losses <= most).all())
    nothing, _ = ran(Fisher(damp=0.5), [(weight, 0 * gradient)], Block(1, 1))
    assert torch.allclose(nothing, 0.25 * weight.square())


def test_a_pruned_unit_costs_nothing() -> None:
    gradient = gradient_of(*problem())
    for pattern in (Block(4, 1), Block(1, "channel"), Block("channel", 1)):
        steps = [(problem()[0], gradient), (torch.zeros(8, 12), gradient)]
        for size in (2, 16):  # by itself, and in a Fisher block with others
            assert not bool(ran(Fisher(size=size), steps, pattern)[0].any())


@pytest.mark.parametrize("decay", [0.99, 0.998, 0.999, 0.9999])
@pytest.mark.parametrize("rank", [1, 2, 5])
@pytest.mark.parametrize("pattern", [Block(4, 1), NofM(2, 4), Block(1, 1)], ids=name)
def test_a_long_average_of_gradients_of_low_rank(decay: float, rank: int, pattern: Block | NofM) -> None:
    generator = torch.Generator().manual_seed(rank)
    weight, basis = torch.randn(16, 32, generator=generator), torch.randn(rank, 16, 32, generator=generator)
    state: list[torch.Tensor] | None = None
    criterion = Fisher(decay=decay)
    exact: torch.Tensor | None = None
    for _ in range(1500):
        mixed = torch.randn(rank, generator=generator) * torch.rand(1, generator=generator)
        gradient = torch.einsum("r,rij->ij", mixed, basis)
        state = criterion.update_state(state, [weight.unsqueeze(1)], [gradient.unsqueeze(1)], pattern)
        blocks = criterion._blocks(gradient.double().unsqueeze(1), pattern)
        assert blocks is not None
        flat = blocks.flatten(1)
        outer = flat.unsqueeze(2) * flat.unsqueeze(1)
        exact = outer if exact is None else decay * exact + (1 - decay) * outer
    assert state is not None
    assert exact is not None
    (found,) = criterion.scores(state, [weight.unsqueeze(1)], pattern)
    assert bool(found.isfinite().all())
    # The scores of the average in float64, damped alike: what float32 lost is no more than part of a score.
    precise = exact + torch.diag_embed(
        (exact.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) * criterion._roundings * 2**-23).expand(-1, exact.shape[1])
    )
    inverse, values = torch.linalg.inv(precise), criterion._blocks(weight.double().unsqueeze(1), pattern)
    assert values is not None
    units, size = values.shape[1:]
    own = inverse.reshape(-1, units, size, units, size).diagonal(dim1=1, dim2=3).movedim(-1, 1)
    expected = torch.einsum("bui,buij,buj->bu", values, torch.linalg.inv(own), values) / 2
    ratio = found.double().flatten() / expected.flatten()
    assert 0.1 < float(ratio.min()) <= float(ratio.max()) < 10


def test_a_block_that_is_not_positive_definite_is_damped_until_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(8, 6, 6, generator=generator, dtype=torch.float64)
    matrix = matrix + matrix.transpose(1, 2)  # of both signs
    damp = torch.full((8, 1), 1e-6, dtype=torch.float64)
    lower = _factor(matrix.clone(), damp.clone())
    added = lower @ lower.transpose(1, 2) - matrix
    assert torch.allclose(added, torch.diag_embed(added.diagonal(dim1=1, dim2=2)), atol=1e-9)
    assert bool(((added[:, 0, 0] >= 1e-6) & (added[:, 0, 0] < 100)).all())
    with pytest.raises(SparsityError, match=r"pruner=fisher: the average of gradients is not finite"):
        _factor(torch.full((1, 2, 2), float("nan"), dtype=torch.float64), damp[:1].clone())
