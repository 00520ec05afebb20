"""Patterns: masks written by hand on every kind of layer, and properties of all patterns."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import examples, holding, linear, mask_of, prune_now
from torch import Tensor, nn

from hydraprune.sparsity import Block, NofM, Pattern, Plans, SparsityError, block, n_of_m, parse, zeros_of

SQUARE = torch.tensor([[1, 14, 6, 12], [2, 4, 9, 15], [8, 11, 3, 16], [10, 5, 13, 7]])

# Blocks of 4x1 cost 5, 12, 8 in the upper half and 20, 4, 18 in the lower.
TALL = torch.tensor([[1, 9, 2], [1, 1, 2], [1, 1, 2], [2, 1, 2], [5, 1, 3], [5, 1, 3], [5, 1, 3], [5, 1, 9]])

ONES, NONE = [1, 1, 1, 1], [0, 0, 0, 0]

LINEAR = [
    ("1x1 half", SQUARE, block(1, 1, 0.5), [[0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 1, 0]]),
    ("1x1 of 3/16", SQUARE, block(1, 1, 0.2), [[0, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1], ONES]),
    ("4x1 quarter", SQUARE, block(4, 1, 0.25), [[0, 1, 1, 1]] * 4),
    ("4x1 half", TALL, block(4, 1, 0.5), [[0, 1, 0]] * 4 + [[1, 0, 1]] * 4),
    ("1x4 quarter", SQUARE, block(1, 4, 0.25), [ONES, NONE, ONES, ONES]),
    ("1x4 half", SQUARE, block(1, 4, 0.5), [NONE, NONE, ONES, ONES]),
    ("2x2 quarter", SQUARE, block(2, 2, 0.25), [[0, 0, 1, 1], [0, 0, 1, 1], ONES, ONES]),
    ("2x2 half", SQUARE, block(2, 2, 0.5), [[0, 0, 1, 1]] * 4),
    ("2x2 three quarters", SQUARE, block(2, 2, 0.75), [[0, 0, 1, 1], [0, 0, 1, 1], NONE, NONE]),
    ("1xchannel half", SQUARE, block(1, "channel", 0.5), [NONE, NONE, ONES, ONES]),
    ("1xchannel of 2/8", TALL, block(1, "channel", 0.3), [[1] * 3, [0] * 3, [0] * 3, *[[1] * 3] * 5]),
    ("channelx1 third", TALL, block("channel", 1, 0.34), [[1, 0, 1]] * 8),
    ("channelx1 half", SQUARE, block("channel", 1, 0.5), [[0, 1, 0, 1]] * 4),
    ("2xchannel half", SQUARE, block(2, "channel", 0.5), [NONE, NONE, ONES, ONES]),
    ("2xchannel quarter", TALL, block(2, "channel", 0.25), [[1] * 3, [1] * 3, [0] * 3, [0] * 3, *[[1] * 3] * 4]),
    ("channelx2 half", SQUARE, block("channel", 2, 0.5), [[0, 0, 1, 1]] * 4),
    ("2:4", SQUARE, n_of_m(2, 4, 0.5), [[0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 1, 0]]),
    ("2:4 half-way", SQUARE, n_of_m(2, 4, 0.25), [[0, 1, 0, 1], [0, 0, 1, 1], ONES, ONES]),
    ("1:4", SQUARE, n_of_m(1, 4, 0.75), [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 0]]),
    ("3:4", SQUARE, n_of_m(3, 4, 0.25), [[0, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1], [1, 0, 1, 1]]),
    ("1:2", SQUARE, n_of_m(1, 2, 0.5), [[0, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0]]),
    ("mean of a row", SQUARE, block(1, 4, 0.25, reduce="mean"), [ONES, NONE, ONES, ONES]),
    ("sum of a row", SQUARE, block(1, 4, 0.25, reduce="sum"), [ONES, NONE, ONES, ONES]),
    ("max of a row", SQUARE, block(1, 4, 0.25, reduce="max"), [ONES, ONES, ONES, NONE]),
]


@pytest.mark.parametrize(("weight", "plans", "expected"), [pytest.param(*c[1:], id=c[0]) for c in LINEAR])
def test_linear_by_hand(weight: Tensor, plans: Plans, expected: list[list[int]]) -> None:
    layer = linear(weight)
    pruner = prune_now(layer, plans)
    keep = mask_of(expected)
    assert torch.equal(pruner.masks["weight"], keep)
    assert torch.equal(layer.weight.data, weight * keep)


@pytest.mark.parametrize(("weight", "plans", "expected"), [pytest.param(*c[1:], id=c[0]) for c in LINEAR])
def test_signs_do_not_matter(weight: Tensor, plans: Plans, expected: list[list[int]]) -> None:
    signs = 1 - 2 * (torch.arange(weight.numel()).reshape(weight.shape) % 3 % 2)
    assert torch.equal(prune_now(linear(weight * signs), plans).masks["weight"], mask_of(expected))


@pytest.mark.parametrize(("weight", "plans", "expected"), [pytest.param(*c[1:], id=c[0]) for c in LINEAR])
def test_transformers_transposed_conv1d_by_hand(weight: Tensor, plans: Plans, expected: list[list[int]]) -> None:
    # Stored as [in, out]: rows of a pattern are still output channels.
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    layer = holding(pytorch_utils.Conv1D(weight.shape[0], weight.shape[1]), weight.t())
    pruner = prune_now(layer, plans)
    assert torch.equal(pruner.masks["weight"], mask_of(expected).t())
    assert torch.equal(layer.weight.data, (weight * mask_of(expected)).t())


# [2 outputs, 4 inputs, 2 positions]
CONV1D = torch.tensor([[[1, 8], [2, 7], [3, 6], [4, 5]], [[9, 10], [12, 11], [13, 16], [15, 14]]])
FULL = [[1, 1]] * 4


@pytest.mark.parametrize(
    ("plans", "expected"),
    [
        pytest.param(block(1, 1, 0.25), [[[0, 1], [0, 1], [0, 1], [0, 1]], FULL], id="1x1"),
        pytest.param(block(1, 4, 0.25), [[[0, 1]] * 4, FULL], id="1x4"),
        pytest.param(block(2, 1, 0.25), [[[0, 1], [0, 1], [1, 1], [1, 1]]] * 2, id="2x1"),
        pytest.param(block(2, 2, 0.25), [[[0, 1], [0, 1], [1, 1], [1, 1]]] * 2, id="2x2"),
        pytest.param(block(1, "channel", 0.5), [[[0, 0]] * 4, FULL], id="1xchannel"),
        pytest.param(block("channel", 1, 0.25), [[[0, 0], [1, 1], [1, 1], [1, 1]]] * 2, id="channelx1"),
        pytest.param(block("channel", 2, 0.5), [[[0, 0], [0, 0], [1, 1], [1, 1]]] * 2, id="channelx2"),
        pytest.param(
            n_of_m(2, 4, 0.5),
            [[[0, 1], [0, 1], [1, 0], [1, 0]], [[0, 0], [0, 0], [1, 1], [1, 1]]],
            id="2:4",
        ),
        pytest.param(
            n_of_m(1, 4, 0.75),
            [[[0, 1], [0, 0], [0, 0], [1, 0]], [[0, 0], [0, 0], [0, 1], [1, 0]]],
            id="1:4",
        ),
        pytest.param(n_of_m(3, 4, 0.125), [[[0, 1], [1, 1], [1, 1], [1, 0]], FULL], id="3:4 half-way"),
    ],
)
def test_conv1d_by_hand(plans: Plans, expected: list[object]) -> None:
    layer = holding(nn.Conv1d(4, 2, 2), CONV1D)
    pruner = prune_now(layer, plans)
    assert torch.equal(pruner.masks["weight"], mask_of(expected))
    assert torch.equal(layer.weight.data, CONV1D * mask_of(expected))


def test_conv2d_output_channels_go_whole() -> None:
    weight = torch.ones(4, 3, 2, 2)
    weight[2] = 0.5
    weight[0, 1, 0, 1] = 0.0  # one small weight makes no small channel
    pruner = prune_now(holding(nn.Conv2d(3, 4, 2), weight), block(1, "channel", 0.25))
    expected = torch.ones(4, 3, 2, 2, dtype=torch.bool)
    expected[2] = False
    assert torch.equal(pruner.masks["weight"], expected)


def test_conv2d_pairs_of_output_channels_go_whole() -> None:
    weight = torch.ones(4, 3, 2, 2)
    weight[2:] = 0.5
    pruner = prune_now(holding(nn.Conv2d(3, 4, 2), weight), block(2, "channel", 0.5))
    expected = torch.ones(4, 3, 2, 2, dtype=torch.bool)
    expected[2:] = False
    assert torch.equal(pruner.masks["weight"], expected)


def test_conv2d_input_channels_go_whole() -> None:
    weight = torch.ones(3, 4, 2, 3)
    weight[:, 2] = 0.5
    weight[:, 0, 1, 2] = 0.0  # one small position makes no small channel
    pruner = prune_now(holding(nn.Conv2d(4, 3, (2, 3)), weight), block("channel", 1, 0.25))
    expected = torch.ones(3, 4, 2, 3, dtype=torch.bool)
    expected[:, 2] = False
    assert torch.equal(pruner.masks["weight"], expected)


def test_conv2d_groups_run_along_input_channels() -> None:
    weight = torch.ones(1, 4, 2, 2)
    small = {(0, 0): (0, 1), (0, 1): (2, 3), (1, 0): (0, 3), (1, 1): (1, 2)}
    expected = torch.ones(1, 4, 2, 2, dtype=torch.bool)
    for (row, column), channels in small.items():
        for channel in channels:
            weight[0, channel, row, column] = 0.1
            expected[0, channel, row, column] = False
    pruner = prune_now(holding(nn.Conv2d(4, 1, 2), weight), n_of_m(2, 4, 0.5))
    assert torch.equal(pruner.masks["weight"], expected)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_ties_prune_the_exact_count_from_the_lower_index(score: float) -> None:
    weight = torch.full((4, 4), score)
    assert torch.equal(
        prune_now(linear(weight), block(1, 1, 0.4, initial_sparsity=0)).masks["weight"].flatten(), torch.arange(16) >= 6
    )
    assert (
        prune_now(linear(weight), n_of_m(2, 4, 0.5, initial_sparsity=0)).masks["weight"].tolist()
        == [[False, False, True, True]] * 4
    )
    assert (
        prune_now(linear(weight), n_of_m(1, 4, 0.75, initial_sparsity=0)).masks["weight"].tolist()
        == [[False] * 3 + [True]] * 4
    )


# Properties ---------------------------------------------------------------------------------------

SIDES = st.sampled_from([1, 2, 3, 4])
REDUCE = st.sampled_from(["mean", "sum", "max"])
BLOCKS = st.builds(Block, SIDES, SIDES, REDUCE)
CHANNELS = st.one_of(st.builds(Block, SIDES, st.just("channel"), REDUCE), st.builds(Block, st.just("channel"), SIDES))
GROUPS = st.sampled_from([(1, 2), (1, 4), (2, 4), (3, 4), (2, 3), (4, 8), (6, 8)]).map(lambda n: NofM(*n))
PATTERNS = st.one_of(BLOCKS, CHANNELS, GROUPS)


@st.composite
def fitted(draw: st.DrawFn) -> tuple[Pattern, tuple[int, int, int]]:
    """A pattern and a view's shape that it tiles, input channels and all."""
    pattern = draw(PATTERNS)
    height = width = 1
    if isinstance(pattern, Block):
        height = pattern.rows if pattern.rows != "channel" else 1
        width = pattern.cols if pattern.cols != "channel" else 1
    else:
        width = pattern.of
    rows, positions, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return pattern, (rows * height, positions, columns * width)


def saliency_of(shape: tuple[int, int, int], seed: int, ties: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2 if ties else 10_000, shape, generator=generator).float()


@given(fitted(), st.integers(0, 10**6), st.booleans(), st.floats(0, 1))
@examples(300)
def test_any_choice_of_units_makes_a_legal_mask_of_the_exact_count(
    case: tuple[Pattern, tuple[int, int, int]], seed: int, ties: bool, share: float
) -> None:
    pattern, shape = case
    assert pattern.misfit(shape) is None
    cells = pattern.to_cells(saliency_of(shape, seed, ties))
    units = pattern.units(shape)
    assert pattern.cost(cells).shape == (units,)
    count = round(units * share)
    pruned = torch.zeros(units, dtype=torch.bool)
    pruned[torch.randperm(units, generator=torch.Generator().manual_seed(seed))[:count]] = True
    keep = pattern.mask(pruned, cells, shape)
    assert keep.shape == shape
    assert keep.dtype == torch.bool
    assert zeros_of(keep) == count * pattern.unit_zeros(shape)
    assert pattern.legal(keep)
    assert torch.equal(pattern.empty_units(keep), pruned)


@given(fitted(), st.integers(0, 10**6))
@examples(200)
def test_every_unit_pruned_is_the_share(case: tuple[Pattern, tuple[int, int, int]], seed: int) -> None:
    pattern, shape = case
    units = pattern.units(shape)
    keep = pattern.mask(torch.ones(units, dtype=torch.bool), pattern.to_cells(saliency_of(shape, seed, True)), shape)
    assert Fraction(zeros_of(keep), keep.numel()) == pattern.share


@given(fitted(), st.integers(0, 10**6), st.integers(0, 10**6))
@examples(200)
def test_one_stray_zero_is_illegal_unless_units_are_single_weights(
    case: tuple[Pattern, tuple[int, int, int]], seed: int, place: int
) -> None:
    pattern, shape = case
    keep = torch.ones(shape, dtype=torch.bool)
    assert pattern.legal(keep)
    keep.view(-1)[place % keep.numel()] = False
    assert pattern.legal(keep) == (pattern.unit_zeros(shape) == 1)


@given(fitted(), st.integers(0, 10**6))
@examples(100)
def test_patterns_do_not_write_into_what_they_are_given(case: tuple[Pattern, tuple[int, int, int]], seed: int) -> None:
    pattern, shape = case
    saliency = saliency_of(shape, seed, False)
    cells = pattern.to_cells(saliency).clone()
    before, pruned = cells.clone(), torch.ones(pattern.units(shape), dtype=torch.bool)
    pattern.cost(cells)
    keep = pattern.mask(pruned, cells, shape)
    seen = keep.clone()
    pattern.legal(keep)
    pattern.empty_units(keep)
    assert torch.equal(cells, before)
    assert torch.equal(saliency, saliency_of(shape, seed, False))
    assert torch.equal(keep, seen)
    assert bool(pruned.all())


@given(GROUPS, st.integers(0, 10**6))
@examples(100)
def test_a_group_loses_its_smallest(pattern: NofM, seed: int) -> None:
    saliency = torch.randperm(6 * pattern.of, generator=torch.Generator().manual_seed(seed)).float()
    shape = (3, 1, 2 * pattern.of)
    keep = pattern.mask(torch.ones(6, dtype=torch.bool), saliency.reshape(shape), shape).reshape(6, -1)
    groups = saliency.reshape(6, -1)
    assert bool((keep.sum(-1) == pattern.keep).all())
    lost = groups.masked_fill(keep, -1).amax(-1)
    kept = groups.masked_fill(~keep, torch.inf).amin(-1)
    assert bool((lost < kept).all())


@pytest.mark.parametrize(("reduce", "expected"), [("mean", 0.75), ("sum", 3.0), ("max", 2.0)])
def test_cost_of_a_group_is_that_of_its_candidates(reduce: str, expected: float) -> None:
    cells = torch.tensor([[[9.0, 1.0, 8.0, 2.0]]])
    assert NofM(2, 4, reduce).cost(cells).tolist() == [expected]  # type: ignore[arg-type]


@pytest.mark.parametrize(("reduce", "expected"), [("mean", 5.0), ("sum", 20.0), ("max", 9.0)])
def test_cost_of_a_block(reduce: str, expected: float) -> None:
    pattern = Block(2, 2, reduce)  # type: ignore[arg-type]
    assert pattern.cost(pattern.to_cells(torch.tensor([[[9.0, 1.0]], [[8.0, 2.0]]]))).tolist() == [expected]


# Names, shares and errors -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "share"),
    [
        (Block(4, 1), "4x1", Fraction(1)),
        (Block(32, 32), "32x32", Fraction(1)),
        (Block(1, "channel"), "1xchannel", Fraction(1)),
        (Block("channel", 2), "channelx2", Fraction(1)),
        (NofM(2, 4), "2:4", Fraction(1, 2)),
        (NofM(1, 4), "1:4", Fraction(3, 4)),
        (NofM(3, 4), "3:4", Fraction(1, 4)),
    ],
)
def test_names_and_shares(pattern: Pattern, name: str, share: Fraction) -> None:
    assert pattern.name == name
    assert pattern.share == share
    assert parse(name) == pattern


@given(PATTERNS)
@examples(50)
def test_a_name_parses_to_its_pattern(pattern: Block | NofM) -> None:
    assert parse(pattern.name) == type(pattern)(*pattern_numbers(pattern))


def pattern_numbers(pattern: Block | NofM) -> tuple[int | str, int | str]:
    return (pattern.rows, pattern.cols) if isinstance(pattern, Block) else (pattern.keep, pattern.of)


@pytest.mark.parametrize(
    "name", ["", "4", "4x", "x1", "4X1", "4x1x1", "2/4", "2:4:8", "4 x 1", "-4x1", "dense", "4x1\n"]
)
def test_a_name_of_no_pattern_is_refused(name: str) -> None:
    with pytest.raises(SparsityError, match=r"not a pattern.*4x1.*2:4"):
        parse(name)


@pytest.mark.parametrize(
    ("name", "words"), [("0x1", "rows=0"), ("4:4", "keep=4"), ("2:0", "of=0"), ("channelxchannel", "rows=channel")]
)
def test_a_name_of_an_impossible_pattern_is_refused(name: str, words: str) -> None:
    with pytest.raises(SparsityError, match=words):
        parse(name)


@pytest.mark.parametrize(
    ("pattern", "shape", "words"),
    [
        (Block(4, 1), (6, 1, 8), ["4", "6 rows"]),
        (Block(1, 4), (8, 1, 6), ["4", "6 columns"]),
        (Block(3, "channel"), (4, 2, 2), ["3", "4 rows"]),
        (Block("channel", 3), (4, 3, 4), ["3", "4 input channels"]),
        (NofM(2, 4), (4, 1, 6), ["4", "6 columns"]),
        (NofM(2, 4), (4, 3, 3), ["4", "3 columns"]),
    ],
)
def test_a_misfit_gives_its_reason(pattern: Pattern, shape: tuple[int, int, int], words: list[str]) -> None:
    why = pattern.misfit(shape)
    assert why is not None
    assert all(word in why for word in words)


def test_groups_do_not_straddle_positions_of_a_kernel() -> None:
    # Two input channels at two positions: no group of four along the input channels exists.
    assert NofM(2, 4).misfit((4, 2, 2)) is not None


@pytest.mark.parametrize("value", [0, -1, 1.0, "4", True, None, "channels"])
@pytest.mark.parametrize("key", ["rows", "cols"])
def test_a_bad_side_is_refused(key: str, value: object) -> None:
    sides = {"rows": 4, "cols": 1, key: value}
    with pytest.raises(SparsityError, match=f"^{key}={value}: .*positive whole number"):
        Block(**sides)  # type: ignore[arg-type]


def test_a_block_of_the_whole_layer_is_refused() -> None:
    with pytest.raises(SparsityError, match="rows=channel: with cols=channel"):
        Block("channel", "channel")


@pytest.mark.parametrize("value", [0, -2, 2.0, "2", True, None, "channel"])
@pytest.mark.parametrize("key", ["keep", "of"])
def test_a_bad_number_of_a_group_is_refused(key: str, value: object) -> None:
    numbers = {"keep": 2, "of": 4, key: value}
    with pytest.raises(SparsityError, match=f"^{key}={value}: .*positive whole number"):
        NofM(**numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(("keep", "of"), [(4, 4), (5, 4), (1, 1)])
def test_a_group_that_prunes_nothing_is_refused(keep: int, of: int) -> None:
    with pytest.raises(SparsityError, match=rf"keep={keep}: .*of={of}"):
        NofM(keep, of)


@pytest.mark.parametrize("make", [lambda how: Block(4, 1, how), lambda how: NofM(2, 4, how)])
@pytest.mark.parametrize("how", ["median", "MEAN", None])
def test_a_bad_reduction_is_refused(make: object, how: object) -> None:
    with pytest.raises(SparsityError, match=f"reduce={how}: .*mean, sum or max"):
        make(how)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("layer", "groups"),
    [
        (nn.Conv2d(8, 8, 3, groups=2), 2),
        (nn.Conv2d(8, 16, 1, groups=4), 4),
        (nn.Conv1d(8, 8, 5, groups=8), 8),  # depthwise
    ],
)
def test_input_channels_of_grouped_convolutions_are_refused(layer: nn.Module, groups: int) -> None:
    """A column of the weight is an input channel of every group, none of which could be removed by itself."""
    model = nn.ModuleDict({"plain": nn.Conv1d(8, 8, 1), "grouped": layer})
    for cols in (1, 2):
        with pytest.raises(SparsityError, match=rf"grouped\.weight .*each of its {groups} groups has input channels"):
            prune_now(model, block("channel", cols, 0.5))
    # Filters are whole, and blocks are of the matrix.
    assert prune_now(layer, block(1, "channel", 0.5)).pools[0][1].total == layer.weight.shape[0]
    assert prune_now(layer, block(4, 1, 0.5, initial_sparsity=0)).zeros * 2 == layer.weight.numel()
    assert prune_now(nn.Conv1d(8, 8, 1), block("channel", 1, 0.5)).pools[0][1].pruned == 4
