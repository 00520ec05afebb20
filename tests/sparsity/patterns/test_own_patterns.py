"""Patterns of a user's own, of three methods each: known by name and usable with every method that can use them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from own_patterns import Diagonal, DownNofM, PlainBlock, PlainNofM
from posttraining_helpers import batches_of, calibration_on
from sparsity_helpers import PLAIN, examples, mlp, prune_now, train
from torch import Tensor, nn

from hydraprune.deploy.verify import table, violations
from hydraprune.sparsity import (
    Block,
    BlockMask,
    Criterion,
    Exp,
    Fisher,
    Gradient,
    GroupLasso,
    Layers,
    Linear,
    Magnitude,
    Method,
    Movement,
    NofM,
    OneShot,
    Pattern,
    Platon,
    PostTraining,
    Progressive,
    RetrainFree,
    Rigl,
    Snip,
    SnipMomentum,
    SoftMovement,
    SparseGpt,
    SparsityError,
    SrSte,
    Wanda,
    attach,
    custom,
    holds_pattern,
    layer_sparsity,
    obeyed_pattern,
    parse,
    register,
    unregister,
)

OWN: list[Pattern] = [Diagonal(2), Diagonal(4), DownNofM(2, 4), DownNofM(1, 4)]
CRITERIA: list[Criterion] = [
    Magnitude(),
    Gradient(),
    Snip(),
    SnipMomentum(),
    BlockMask(),
    Movement(),
    SoftMovement(penalty=4e-3),
    Platon(),
    Fisher(),
]
STEPS = 16
RAMP = Exp(warmup=4, cooldown=3, frequency=3)


def name(value: object) -> str:
    return str(getattr(value, "name", value))


@pytest.fixture
def known() -> Iterator[None]:
    """The patterns registered."""
    register(*OWN)
    yield
    for pattern in OWN:
        unregister(pattern.name)


def model() -> nn.Sequential:
    """Layers whose rows and columns four divides."""
    return mlp()


def check_zeros(pattern: Pattern, target: float, weights: nn.Module) -> None:
    """The model's zeros are whole units of the pattern, as many as asked for."""
    units = found = 0
    for layer in (weights[0], weights[2]):
        keep = layer.weight.detach().unsqueeze(1) != 0
        assert pattern.legal(keep)
        found += int(pattern.empty_units(keep).sum())
        units += pattern.units((keep.shape[0], 1, keep.shape[2]))
    assert found == int(units * Fraction(str(target)) / pattern.share)


# The base class beside the patterns that override it ----------------------------------------------

PAIRS = [
    *[
        (PlainBlock(rows, cols, how), Block(rows, cols, how))
        for rows, cols in ((1, 1), (4, 1), (1, 4), (2, 3))
        for how in ("mean", "sum", "max")
    ],
    *[
        (PlainNofM(keep, of, how), NofM(keep, of, how))
        for keep, of in ((2, 4), (1, 4), (3, 12))
        for how in ("mean", "sum", "max")
    ],
]


@pytest.mark.parametrize(("plain", "fast"), PAIRS, ids=[name(p) + p.reduce for p, _ in PAIRS])
@given(seed=st.integers(0, 10**6), positions=st.integers(1, 3))
@examples(20)
def test_the_base_class_agrees_with_the_faster_ways(plain: Pattern, fast: Pattern, seed: int, positions: int) -> None:
    shape = (8, positions, 12)
    generator = torch.Generator().manual_seed(seed)
    saliency = torch.randint(0, 5, shape, generator=generator).float()
    assert plain.units(shape) == fast.units(shape)
    assert plain.unit_zeros(shape) == fast.unit_zeros(shape)
    assert plain.share == fast.share
    units = fast.to_units(saliency)
    assert torch.equal(plain.to_units(saliency), units)
    assert torch.equal(plain.from_units(units, shape), saliency)
    assert torch.equal(fast.from_units(units, shape), saliency)
    cells, quick = plain.to_cells(saliency), fast.to_cells(saliency)
    assert torch.equal(cells.flatten(), quick.flatten())
    assert torch.equal(plain.sum_cells(saliency).flatten(), fast.sum_cells(saliency).flatten())
    assert torch.equal(plain.cost(cells), fast.cost(quick))
    pruned = torch.rand(plain.units(shape), generator=generator) > 0.5
    keep = fast.mask(pruned, quick, shape)
    assert torch.equal(plain.mask(pruned, cells, shape), keep)
    small = fast.broadcast_mask(pruned, quick, shape).expand(fast.broadcast_view(saliency).shape)
    assert torch.equal(small.reshape(shape), keep)
    assert torch.equal(plain.broadcast_mask(pruned, cells, shape), keep)
    assert torch.equal(plain.empty_units(keep), fast.empty_units(keep))
    worth = torch.rand(plain.units(shape), generator=generator)
    assert torch.equal(plain.spread(worth, shape), fast.spread(worth, shape))
    stray = keep ^ (torch.rand(shape, generator=generator) > 0.95)
    assert plain.legal(keep) == fast.legal(keep) is True
    assert plain.legal(stray) == fast.legal(stray)


# Known by name ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("pattern", OWN, ids=name)
def test_a_registered_pattern_is_known_to_parse_statistics_and_verify(pattern: Pattern) -> None:
    pruned = model()
    prune_now(pruned, custom(pattern, 0.5 if pattern.share == 1 else None))
    assert parse(pattern.name) == pattern
    assert [layer.pattern for layer in layer_sparsity(pruned)] == [pattern.name] * 2
    assert violations(pruned, parse(pattern.name)) == []
    assert f"{pattern.name} in 2 layers" in table(pruned)
    pruned[0].weight.data[0, 0] = 1 if pruned[0].weight[0, 0] == 0 else 0
    assert violations(pruned, pattern) == [f"0: has zeros outside whole {pattern.name} units"]


@pytest.mark.usefixtures("known")
def test_patterns_of_the_package_keep_their_names_beside_registered_ones() -> None:
    for pattern in (Block(4, 1), Block(2, 2), NofM(2, 4), Block(1, "channel")):
        pruned = model()
        prune_now(pruned, custom(pattern, 0.5))
        assert {layer.pattern for layer in layer_sparsity(pruned)} == {pattern.name}


def test_a_pattern_that_is_not_registered_is_not_known() -> None:
    with pytest.raises(SparsityError, match="diagonal2: not a pattern"):
        parse("diagonal2")
    register(Diagonal(2))
    register(Diagonal(2))  # again: no error
    assert parse("diagonal2") == Diagonal(2)
    with pytest.raises(SparsityError, match=r"not a pattern; .*registered: diagonal2"):
        parse("diagonal3")
    with pytest.raises(SparsityError, match="pattern=diagonal2: there is another pattern of this name"):
        register(Diagonal(2, "max"))
    unregister("diagonal2")
    with pytest.raises(SparsityError, match="not a pattern"):
        parse("diagonal2")


def test_a_name_of_a_block_is_taken() -> None:
    class Impostor(Diagonal):
        @property
        def name(self) -> str:
            return "2:4"

    with pytest.raises(SparsityError, match="pattern=2:4: there is another pattern of this name"):
        register(Impostor(2))
    assert obeyed_pattern(torch.ones(4, 1, 4, dtype=torch.bool)) == "dense"


# With every method --------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", OWN, ids=name)
@pytest.mark.parametrize("criterion", [*CRITERIA, SrSte()], ids=name)
def test_every_criterion_prunes_by_it_and_resumes(criterion: Method, pattern: Pattern) -> None:
    (plan,) = custom(pattern, 0.5).parts.values()
    plan = plan.completed(criterion, RAMP)
    whole, halves = model(), model()
    (one,), (two,) = (attach(m, {"own": plan}, PLAIN, STEPS) for m in (whole, halves))
    train(whole, [one], range(STEPS))
    check_zeros(pattern, 0.5, whole)
    assert holds_pattern(one, dict(whole.named_parameters()))[0]
    optimizer = torch.optim.AdamW(halves.parameters(), lr=1e-2, weight_decay=0.1)
    train(halves, [two], range(7), optimizer)
    (three,) = attach(halves, {"own": plan}, PLAIN, STEPS)
    three.load_state_dict(two.state_dict())
    train(halves, [three], range(7, STEPS), optimizer)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


@pytest.mark.parametrize("pattern", OWN, ids=name)
@pytest.mark.parametrize("scope", ["global", "local", "erk"])
def test_every_scope_and_order_of_parts(scope: str, pattern: Pattern) -> None:
    (plan,) = custom(pattern, 0.4, scope).parts.values()  # type: ignore[arg-type]
    schedule = Linear(warmup=4, frequency=4)
    pruned = model()
    (pruner,) = attach(pruned, {"own": plan.completed(SnipMomentum(), schedule, Progressive(4))}, PLAIN, STEPS)
    zeros: list[int] = []
    train(pruned, [pruner], range(STEPS), after=lambda step: zeros.append(pruner.zeros))
    assert zeros == sorted(zeros)
    assert holds_pattern(pruner, dict(pruned.named_parameters()))[0]
    for layer in (pruned[0], pruned[2]):
        assert pattern.legal(layer.weight.detach().unsqueeze(1) != 0)


def test_single_weights_of_a_group_go_by_their_own_scores() -> None:
    layer = nn.Linear(2, 4, bias=False)
    layer.weight.data = torch.tensor([[4.0, 5.0], [3.0, 8.0], [1.0, 6.0], [2.0, 7.0]])
    (plan,) = custom(DownNofM(2, 4)).parts.values()
    schedule = Exp(warmup=2, frequency=2)
    (pruner,) = attach(nn.Sequential(layer), {"own": plan.completed(Magnitude(), schedule, Progressive(2))}, PLAIN, 2)
    pruner.project(0)
    pruner.project(1)
    # Two of four go in all: the lower two of both columns, in the order of their size over the layer.
    assert layer.weight.tolist() == [[4, 5], [3, 8], [0, 6], [0, 7]]
    pruner.project(2)
    assert layer.weight.tolist() == [[4, 0], [3, 8], [0, 0], [0, 7]]


def test_rigl_exchanges_whole_units_and_refuses_groups() -> None:
    (plan,) = custom(Diagonal(2), 0.5).parts.values()
    pruned = model()
    (pruner,) = attach(pruned, {"own": plan.completed(Rigl(), RAMP)}, PLAIN, STEPS)
    train(pruned, [pruner], range(STEPS))
    check_zeros(Diagonal(2), 0.5, pruned)
    (plan,) = custom(DownNofM(2, 4)).parts.values()
    with pytest.raises(SparsityError, match="pruner=rigl: exchanges whole units, and those of down2of4 are groups"):
        attach(model(), {"own": plan.completed(Rigl(), RAMP)}, PLAIN, STEPS)


def test_group_lasso_shrinks_whole_units_and_refuses_groups() -> None:
    (plan,) = custom(Diagonal(2), 0.5).parts.values()
    pruned = model()
    before = pruned[0].weight.detach().clone()
    (pruner,) = attach(pruned, {"own": plan.completed(Magnitude(), RAMP, None, GroupLasso(0.1))}, PLAIN, STEPS)
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1)
    plan.completed(Magnitude(), RAMP, None, GroupLasso(0.1)).regularizer.shrink(pruner.structures, optimizer)  # type: ignore[union-attr]
    units = Diagonal(2).to_units(before.unsqueeze(1))
    factor = (1 - 0.1 * 0.1 * 2**0.5 / units.norm(dim=1)).clamp(min=0)
    expected = Diagonal(2).from_units(units * factor.unsqueeze(1), (20, 1, 20)).squeeze(1)
    assert torch.allclose(pruned[0].weight, expected)
    (plan,) = custom(DownNofM(2, 4)).parts.values()
    with pytest.raises(SparsityError, match="regularizer=group_lasso: shrinks whole blocks, and down2of4 has none"):
        attach(model(), {"own": plan.completed(Magnitude(), RAMP, None, GroupLasso(0.1))}, PLAIN, STEPS)


@pytest.mark.parametrize("pattern", OWN, ids=name)
def test_wanda_lets_the_whole_layer_compete(pattern: Pattern) -> None:
    pruned = model().double()
    original = pruned[0].weight.detach().clone()
    batches = batches_of(20)
    (plan,) = custom(pattern, 0.25, layers=Layers(include=["^0$"])).parts.values()
    (pruner,) = attach(
        pruned, {"own": plan.completed(Wanda(), OneShot())}, PLAIN, 0, calibration=calibration_on(pruned, batches)
    )
    pruner.project(0)
    keep = pruned[0].weight.detach().unsqueeze(1) != 0
    norms = torch.cat(batches).square().sum(0).sqrt().float()
    cells = pattern.to_cells((original.float().abs() * norms).unsqueeze(1))
    count = int(pattern.units((20, 1, 20)) * Fraction(1, 4) / pattern.share)
    chosen = torch.zeros(pattern.units((20, 1, 20)), dtype=torch.bool)
    chosen[pattern.cost(cells).argsort(stable=True)[:count]] = True
    assert torch.equal(keep, pattern.mask(chosen, cells, (20, 1, 20)))


@pytest.mark.parametrize("pattern", OWN, ids=name)
@pytest.mark.parametrize(
    ("method", "words"),
    [
        (SparseGpt(), "pruner=sparse_gpt: {} leaves no column of a row to compensate for the others; choose another"),
        (RetrainFree(), "pruner=retrain_free: scales whole channels or heads, which units of {} are not"),
    ],
    ids=name,
)
def test_a_method_that_cannot_use_it_refuses_it_in_one_line(method: PostTraining, words: str, pattern: Pattern) -> None:
    (plan,) = custom(pattern, 0.25).parts.values()
    with pytest.raises(SparsityError) as error:
        attach(model(), {"own": plan.completed(method, OneShot())}, PLAIN, 0)
    assert str(error.value).startswith(words.format(pattern.name))


class Tall(PlainBlock):
    """Blocks that say how wide they are, and which are rectangles."""

    @property
    def unit_columns(self) -> int:
        return self.cols

    def unit_shape(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        return self.rows, self.cols


@pytest.mark.parametrize("method", [SparseGpt(columns=8), Wanda()], ids=name)
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (4, 1), (2, 2)])
def test_a_pattern_that_names_its_columns_is_pruned_as_a_block(method: PostTraining, rows: int, cols: int) -> None:
    results: list[list[Tensor]] = []
    for pattern in (Tall(rows, cols), Block(rows, cols)):
        pruned = model().double()
        (plan,) = custom(pattern, 0.5, "local").parts.values()
        calibration = calibration_on(pruned, batches_of(20))
        (pruner,) = attach(pruned, {"own": plan.completed(method, OneShot())}, PLAIN, 0, calibration=calibration)
        pruner.project(0)
        results.append([parameter.detach() for parameter in pruned.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_parts_along_blocks_need_a_rectangle() -> None:
    def along_blocks(pattern: Pattern) -> str:
        (plan,) = custom(pattern, 0.5).parts.values()
        plan = plan.completed(Magnitude(), Linear(warmup=4, frequency=4), Progressive(2, "linear"))
        (pruner,) = attach(model(), {"own": plan}, PLAIN, STEPS)
        return pruner.name

    with pytest.raises(SparsityError, match=r"progressive\.order=linear: diagonal2 has no blocks to cross"):
        along_blocks(Diagonal(2))
    assert along_blocks(Tall(4, 1)) == "own"


def test_a_pattern_that_does_not_fit_is_refused_with_its_own_reason() -> None:
    (plan,) = custom(Diagonal(8), 0.5).parts.values()
    with pytest.raises(SparsityError) as error:
        attach(model(), {"own": plan.completed(Magnitude(), OneShot())}, PLAIN, 1)
    assert str(error.value) == (
        "diagonal8 does not fit 0.weight (20, 20): 8 does not divide its 20 rows or 20 columns (and 1 more); "
        "choose another shape or exclude the layer: layers.exclude=['^0$']"
    )


def test_without_a_target_all_that_the_pattern_allows_is_pruned() -> None:
    assert custom(DownNofM(1, 4)).target_sparsity == 0.75
    with pytest.raises(SparsityError, match=r"^target_sparsity=None: must be a number"):
        custom(Diagonal(2))
