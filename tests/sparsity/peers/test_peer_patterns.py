"""What other pruning libraries assert of patterns and block shapes, restated for ours.

A comment above each test names the library, the commit of its test that was read, with its date except for PyTorch, and
the test. Where ours differs on purpose, the comment says how.
"""

from __future__ import annotations

import pytest
import torch
from sparsity_helpers import holding, linear, mask_of, prune_now
from torch import Tensor, nn
from torch.nn import functional

from hydraprune.sparsity import Block, Magnitude, SparsityError, block, zeros_of
from hydraprune.sparsity.patterns import shape_of

SHAPES = [(1, 1), (1, 4), (2, 2), (4, 1)]


def spread_of(pattern: Block, values: Tensor, view: Tensor) -> Tensor:
    """One value for each unit at every weight of the unit."""
    return pattern.spread(values.flatten(), shape_of(view)).squeeze(1)


# torch.ao.pruning, pytorch 02ab03f, test_sparsifier.py: WeightNormSparsifier.test_sparsity_levels (weights that are all
# equal, a level for each block shape, all weights of a block). Its levels -1 and 2 are clipped; ours are refused, and 1
# with them: a layer without a weight computes nothing.
@pytest.mark.parametrize("sides", SHAPES)
@pytest.mark.parametrize("level", [0.0, 0.25, 0.5, 0.75])
def test_a_layer_of_equal_weights_loses_the_share_asked_for(sides: tuple[int, int], level: float) -> None:
    layer = linear(torch.ones(12, 12))
    prune_now(layer, block(*sides, level))
    assert zeros_of(layer.weight.detach()) == 144 * level


@pytest.mark.parametrize("sides", SHAPES)
@pytest.mark.parametrize("level", [-1.0, 1.0, 2.0])
def test_a_level_that_is_no_share_is_refused(sides: tuple[int, int], level: float) -> None:
    with pytest.raises(SparsityError, match="target_sparsity"):
        block(*sides, level, cap=1.0)


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_impl_test.py: testBlockMaskingAvg.
def test_two_by_two_blocks_go_by_their_mean() -> None:
    quarters = torch.tensor([[0.5, 0.1], [0.2, 0.7]])
    layer = linear(torch.kron(quarters, torch.ones(2, 2)))
    pruner = prune_now(layer, block(2, 2, 0.5))
    expected = torch.kron(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.ones(2, 2)).bool()
    assert torch.equal(pruner.masks["weight"], expected)


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_impl_test.py: testBlockMaskingMax (blocks with zeros and
# weights of either sign, scored by the largest magnitude).
def test_two_by_two_blocks_go_by_their_largest_weight() -> None:
    corner = torch.tensor([[0.0, -1.0], [0.0, 0.0]])
    layer = linear(torch.cat([torch.kron(torch.tensor([[0.9, 0.3]]), corner), torch.full((2, 4), 0.4)]))
    pruner = prune_now(layer, block(2, 2, 0.25, reduce="max"))
    assert torch.equal(pruner.masks["weight"], mask_of([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]))
    # By their means, the first block goes before those of 0.4, and the second before it.
    other = linear(torch.cat([torch.kron(torch.tensor([[0.9, 0.3]]), corner), torch.full((2, 4), 0.4)]))
    assert not prune_now(other, block(2, 2, 0.5)).masks["weight"][:2].any()


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_impl_test.py:
# testBlockMaskingWithHigherDimensionsRaisesError. There, blocks are for matrices only; ours tile the matrix [out,
# kernel positions * in] of a convolution.
def test_blocks_of_a_convolution_lie_within_one_kernel_position() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 4, 3, bias=False)
    mask = prune_now(layer, block(2, 4, 0.5)).masks["weight"]
    assert mask.shape == layer.weight.shape
    for row in range(0, 4, 2):
        for column in range(0, 8, 4):
            units = mask[row : row + 2, column : column + 4].flatten(2).flatten(0, 1)
            assert all(kept in (0, 8) for kept in units.sum(0).tolist())


# tensorflow_model_optimization, 133fc1f of 2021-06-15, pruning_utils_test.py: testExpandTensor, testFactorizedAvgPool,
# testFactorizedMaxPool (the same seven shapes).
@pytest.mark.parametrize("sides", [(1, 1), (4, 4), (6, 6), (1, 4), (4, 1), (1, 8), (8, 1)])
def test_scores_are_pooled_and_masks_expanded_as_by_kronecker(sides: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 48, generator=generator)
    mean, largest = Block(*sides), Block(*sides, "max")
    pooled = functional.avg_pool2d(weight[None, None], sides, sides).flatten()
    torch.testing.assert_close(mean.to_cells(weight.unsqueeze(1)).flatten(), pooled)
    highest = functional.max_pool2d(weight[None, None], sides, sides).flatten()
    assert torch.equal(largest.to_cells(weight.unsqueeze(1)).flatten(), highest)
    units = torch.randn(24 // sides[0], 48 // sides[1], generator=generator)
    assert torch.equal(spread_of(mean, units, weight.unsqueeze(1)), torch.kron(units, torch.ones(sides)))


# Intel Neural Compressor 46ee70e of 2023-08-22, pruning_1.x_v1/test_pruning_pattern.py: test_tile_pattern (five shapes
# on a matrix and on a convolution: the shape of the reduced tensor, its sparsity, and the shape of the mask).
@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (1, 16), (4, 1), (1, 2)])
@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_tiles_of_a_matrix_and_of_a_convolution(sides: tuple[int, int], kernel: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    module = nn.Conv2d(32, 16, 3) if kernel else nn.Linear(32, 16)
    pruner = prune_now(module, block(*sides, 0.25))
    (weight,) = pruner.weights
    view, pattern = weight.view(module.weight.detach()), Block(*sides)
    units = 16 * 32 * (9 if kernel else 1) // (sides[0] * sides[1])
    assert pattern.to_cells(view).numel() == units
    assert int(pattern.empty_units(view != 0).sum()) == units // 4
    assert pattern.legal(view != 0)
    assert pruner.masks["weight"].shape == module.weight.shape


# SparseML 1182c3c of 2022-04-27, test_mask_creator.py: test_sparsity_mask_creator with FourBlockMaskCreator, and
# test_four_block_mask_creator_matches_block (four neighbours along the input channels share one fate).
@pytest.mark.parametrize("level", [0.4, 0.6, 0.9])
def test_four_input_channels_at_a_time(level: float) -> None:
    torch.manual_seed(2)
    layer = nn.Conv2d(16, 8, 3, bias=False)
    mask = prune_now(layer, block(1, 4, level)).masks["weight"]
    fours = mask.unflatten(1, (4, 4))
    assert torch.equal(fours.all(2), fours.any(2))
    assert int((~fours.any(2)).sum()) == int(8 * 4 * 9 * level)


# SparseML 1182c3c of 2022-04-27, test_mask_creator.py: test_sparsity_mask_creator on 513 columns, which it pads to a
# multiple of four. Ours refuses them: a block that hangs over the edge is none that a kernel could skip.
@pytest.mark.parametrize("shape", [(8, 513), (6, 18), (1, 2)])
def test_a_row_that_blocks_do_not_divide_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(SparsityError, match="1x4 does not fit"):
        prune_now(nn.Linear(shape[1], shape[0]), block(1, 4, 0.5))


# torch.ao.pruning, pytorch 06d786d, test_structured_sparsifier.py: test_saliency_pruner_update_mask (rows of lowest
# saliency). It removes the rows; ours are zero, and the shape stays.
def test_output_channels_of_lowest_magnitude() -> None:
    layer = linear(torch.tensor([[3.0, 3, 3], [-0.5, 0.5, 0.5], [2, -2, 2], [1, 1, 1]]))
    prune_now(layer, block(1, "channel", 0.5))
    assert layer.weight.detach().any(1).tolist() == [True, False, True, False]
    assert layer.weight.shape == (4, 3)


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_ln_structured_pruning, dim=1 (one input channel of a
# convolution, at every position of its kernel). Its dim=-1, a column of the kernel, is no pattern of ours.
def test_an_input_channel_of_a_convolution() -> None:
    weight = torch.tensor([[[[4.0, 1.0], [0.5, 2.0]], [[-1.0, -6.0], [2.0, 0.1]], [[0.2, -0.3], [0.9, 0.4]]]])
    layer = holding(nn.Conv2d(3, 1, 2, bias=False), weight)
    pruner = prune_now(layer, block("channel", 1, 0.34))
    assert pruner.masks["weight"].flatten(2).any(2).tolist() == [[True, True, False]]


# NNI 6ea069c of 2023-05-23, compression/pruning/test_pruner.py: check_masks (whole filters of convolutions and rows of
# linear layers, 0.75 of each). Its masks take the bias of a pruned channel too; ours never change a bias.
@pytest.mark.parametrize("scope", ["local", "global"])
def test_three_quarters_of_the_filters(scope: str) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(24, 32))
    biases = [layer.bias.detach().clone() for layer in model]
    masks = prune_now(model, block(1, "channel", 0.75, scope, cap=1.0)).masks  # type: ignore[arg-type]
    rows = {name: mask.flatten(1) for name, mask in masks.items()}
    assert all(torch.equal(mask.all(1), mask.any(1)) for mask in rows.values())
    kept = [int(mask.any(1).sum()) for mask in rows.values()]
    assert sum(kept) == 14
    assert scope == "global" or kept == [2, 4, 8]
    assert all(torch.equal(layer.bias, bias) for layer, bias in zip(model, biases, strict=True))


# SparseML 1e8ff62 of 2022-03-04, test_modifier_pruning_structured.py: test_structured_sparsity_mask_creator ("filter"
# of matrices, "channel" of matrices and convolutions, and the share of dimensions that are wholly zero).
@pytest.mark.parametrize("level", [0.0, 0.4, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("along", ["rows", "columns"])
def test_the_share_of_whole_rows_and_columns(level: float, along: str) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(50, 40, 3), nn.Linear(50, 40))
    sides = (1, "channel") if along == "rows" else ("channel", 1)
    prune_now(model, block(*sides, level, "local", cap=1.0))  # type: ignore[arg-type]
    for layer in model:
        used = layer.weight.detach() != 0
        lines = used.flatten(1) if along == "rows" else used.transpose(0, 1).flatten(1)
        assert int((~lines.any(1)).sum()) == int(len(lines) * round(100 * level) // 100)


# Torch-Pruning 2ae003c of 2023-08-28, test_importance_reduction.py: mean, sum and max over a group equal those of the
# raw scores.
@pytest.mark.parametrize(
    ("how", "plain"),
    [("mean", lambda rows: rows.mean(1)), ("sum", lambda rows: rows.sum(1)), ("max", lambda rows: rows.amax(1))],
)
def test_reductions_of_the_scores_of_a_group(how: str, plain: object) -> None:
    weight = torch.randn(6, 10, generator=torch.Generator().manual_seed(5))
    pattern = Block(1, "channel", how)  # type: ignore[arg-type]
    (cells,) = Magnitude().update_state(None, [weight.unsqueeze(1)], None, pattern)
    torch.testing.assert_close(cells.flatten(), plain(weight.abs()))  # type: ignore[operator]


# tensorflow_model_optimization, 126b855 of 2024-09-24, pruning_wrapper_test.py:
# testPruneWrapperAllowsOnlyValidPoolingType.
@pytest.mark.parametrize("how", ["MIN", "min", "AVG", ""])
def test_a_reduction_that_there_is_not_is_refused(how: str) -> None:
    with pytest.raises(SparsityError, match="reduce"):
        block(2, 2, 0.5, reduce=how)  # type: ignore[arg-type]


# nn_pruning 04e9567 of 2021-03-19, test_patch.py: the 32x32 blocks of its hybrid models, each kept or zero as a whole.
def test_square_blocks_of_a_large_layer() -> None:
    torch.manual_seed(6)
    layer = nn.Linear(96, 128)
    mask = prune_now(layer, block(32, 32, 0.5)).masks["weight"]
    kept = mask.unflatten(0, (4, 32)).unflatten(2, (3, 32)).sum((1, 3))
    assert sorted(kept.flatten().tolist()) == [0] * 6 + [1024] * 6
