"""What other pruning libraries assert of N:M sparsity, restated for ours.

A comment above each test names the library, the commit of its test that was read, with its date except for PyTorch, and
the test. Where ours differs on purpose, the comment says how.
"""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from sparsity_helpers import holding, linear, mask_of, prune_now
from torch import Tensor, nn

from hydraprune.sparsity import NofM, SparsityError, n_of_m, obeyed_pattern, parse, zeros_of


class Conv1D(nn.Module):
    """A linear layer whose weight is [in, out], named as in Hugging Face's GPT-2."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))


def best_of_all(weight: Tensor, keep: int, of: int) -> Tensor:
    """The mask that keeps the largest sum of magnitudes in every `of` columns, by trying all of them."""
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for row, values in enumerate(weight.abs().tolist()):
        for start in range(0, len(values), of):
            group = values[start : start + of]
            best = max(combinations(range(of), keep), key=lambda chosen: sum(group[i] for i in chosen))
            mask[row, [start + i for i in best]] = True
    return mask


# apex ASP 0441afd of 2023-01-01, sparse_masklib.py: mn_1d_best (of all patterns of a group, the one that keeps the most
# magnitude).
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (1, 2), (4, 8), (2, 6)])
def test_the_best_of_all_patterns_of_a_group(keep: int, of: int) -> None:
    weight = torch.randn(5, 24, generator=torch.Generator().manual_seed(keep + of))
    layer = linear(weight)
    pruner = prune_now(layer, n_of_m(keep, of))
    assert torch.equal(pruner.masks["weight"], best_of_all(weight, keep, of))


# apex ASP 0441afd of 2023-01-01, sparse_masklib.py: create_mask (a linear layer is [K, C], a 1d convolution [K, C, R],
# a 2d one [K, C, R, S]; groups run along C).
@pytest.mark.parametrize(
    "layer", [nn.Linear(16, 6), nn.Conv1d(16, 6, 5), nn.Conv2d(16, 6, 3), nn.Conv2d(16, 6, (1, 2)), Conv1D(6, 16)]
)
def test_groups_run_along_input_channels(layer: nn.Module) -> None:
    holding(layer, torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0)))
    before = layer.weight.detach().clone()
    prune_now(layer, n_of_m(2, 4))
    weight, axis = layer.weight.detach(), 0 if isinstance(layer, Conv1D) else 1
    matrix, dense = (tensor.movedim(axis, -1).reshape(-1, 16) for tensor in (weight, before))
    assert torch.equal(matrix != 0, best_of_all(dense, 2, 4))


# apex ASP 0441afd of 2023-01-01, sparse_masklib.py: reshape_1d pads columns that four does not divide. Ours refuses
# them by name.
@pytest.mark.parametrize("columns", [2, 6, 513])
def test_columns_that_a_group_does_not_divide_are_refused(columns: int) -> None:
    with pytest.raises(SparsityError, match=r"2:4 does not fit weight .*4 does not divide its"):
        prune_now(nn.Linear(columns, 3), n_of_m(2, 4))


# torch.ao.pruning, pytorch 02ab03f, test_sparsifier.py: WeightNormSparsifier.test_step_2_of_4.
def test_every_group_has_exactly_two_zeros() -> None:
    torch.manual_seed(1)
    layer = nn.Linear(28, 12)
    mask = prune_now(layer, n_of_m(2, 4)).masks["weight"]
    assert mask.float().mean() == 0.5
    assert mask.reshape(-1, 4).sum(1).unique().tolist() == [2]


# SparseML 1182c3c of 2022-04-27, test_mask_creator.py: TestNMPruningMaskCreator (2:4, 3:4, 1:8 and 7:8 on matrices and
# convolutions: sparsity 1 - N/M, and N kept in every group). Its groups follow the memory of a convolution; ours its
# input channels.
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (3, 4), (1, 8), (7, 8)])
@pytest.mark.parametrize("layer", [nn.Linear(64, 16), nn.Conv2d(32, 8, 3)])
def test_n_are_kept_of_every_m(keep: int, of: int, layer: nn.Module) -> None:
    holding(layer, torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(of)))
    mask = prune_now(layer, n_of_m(keep, of)).masks["weight"]
    groups = mask.movedim(1, -1).reshape(-1, of)
    assert groups.sum(1).unique().tolist() == [keep]
    assert int((~mask).sum()) * of == mask.numel() * (of - keep)


# SparseML 1182c3c of 2022-04-27, test_mask_creator.py: TestNMPruningMaskCreator.test_pre_prune_sparsity.
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 8)])
def test_a_target_of_nothing_leaves_all_groups_dense(keep: int, of: int) -> None:
    torch.manual_seed(2)
    layer = nn.Linear(16, 8)
    pruner = prune_now(layer, n_of_m(keep, of, 0.0))
    assert zeros_of(layer.weight.detach()) == 0
    assert pruner.zeros == 0


# tensorflow_model_optimization, 133fc1f of 2021-06-15, pruning_utils_test.py: testGenerateMxNMask (which weights of a
# group go; a window that does not fit gives no mask). Ours refuses the last.
@pytest.mark.parametrize(
    ("weight", "keep", "of", "expected"),
    [
        ([[5.0, 1, 9, 3]], 2, 4, [[1, 0, 1, 0]]),
        ([[6.0, 5, 4, 3, 2, 1]], 3, 6, [[1, 1, 1, 0, 0, 0]]),
        ([[2.0, 1], [3, 4]], 1, 2, [[1, 0], [0, 1]]),
        ([[-5.0, 4, -3, 2]], 1, 4, [[1, 0, 0, 0]]),
    ],
)
def test_masks_of_single_groups(weight: list[list[float]], keep: int, of: int, expected: list[list[int]]) -> None:
    pruner = prune_now(linear(torch.tensor(weight)), n_of_m(keep, of))
    assert torch.equal(pruner.masks["weight"], mask_of(expected))


def test_a_group_wider_than_the_row_is_refused() -> None:
    with pytest.raises(SparsityError, match="1:6 does not fit"):
        prune_now(nn.Linear(2, 1), n_of_m(1, 6))


# tensorflow_model_optimization, 133fc1f of 2021-06-15, pruning_utils_test.py: testIsPruned2x4Test (at least two zeros
# in every four).
@pytest.mark.parametrize(
    ("rows", "pruned"),
    [
        ([[7, 1, 1, 2]], False),
        ([[0, 0, 3, 1], [1, 2, 0, 4]], False),
        ([[1, 0, 0, 4], [5, 6, 0, 8]], False),
        ([[0, 3, 0, 2]], True),
        ([[1, 2, 0, 0], [0, 0, 9, 0], [0, 2, 1, 0]], True),
        ([[0, 0, 0, 0]], True),
    ],
)
def test_whether_weights_are_pruned(rows: list[list[int]], pruned: bool) -> None:
    keep = mask_of(rows).unsqueeze(1)
    assert bool(NofM(2, 4).empty_units(keep).all()) is pruned


# The same test asserts that six columns are not 2:4; ours says so before anything is masked.
def test_six_columns_are_no_groups_of_four() -> None:
    assert NofM(2, 4).misfit((1, 1, 6)) is not None
    assert NofM(2, 4).misfit((1, 1, 8)) is None


# Intel Neural Compressor 18173d6 of 2023-08-22, pruning_2.x/test_pruning_patterns.py prunes layer1 by 5:8, where 5 are
# removed. N of N:M is what stays, here and in hardware: the same weights go under 3:8.
def test_n_counts_what_stays() -> None:
    weight = torch.arange(1.0, 17).reshape(2, 8)
    assert NofM(5, 8).share * 8 == 3
    assert prune_now(linear(weight), n_of_m(3, 8)).masks["weight"].sum(1).tolist() == [3, 3]


# torch.ao.pruning, pytorch 02ab03f, test_sparsifier.py: test_sparsity_levels with zeros_per_block 1 to 4 of (1, 4), and
# sparsity levels below 1: so many groups lose so many weights each. A level of 1 is all groups, ours a target of N/M.
@pytest.mark.parametrize("zeros", [1, 2, 3])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_groups_loses_so_many_weights_each(zeros: int, share: float) -> None:
    layer = linear(torch.ones(12, 12))
    prune_now(layer, n_of_m(4 - zeros, 4, share * zeros / 4))
    counts = (layer.weight.detach() == 0).reshape(-1, 4).sum(1)
    assert sorted(counts.tolist()) == [0] * int(36 * (1 - share)) + [zeros] * int(36 * share)


# tensorflow_model_optimization keras/tools/check_sparsity_m_by_n.py, fd4ae63 of 2021-07-29: finds the pattern in
# finished weights.
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (4, 8)])
def test_finished_weights_tell_their_pattern(keep: int, of: int) -> None:
    layer = linear(torch.randn(8, 32, generator=torch.Generator().manual_seed(3)))
    prune_now(layer, n_of_m(keep, of))
    assert obeyed_pattern((layer.weight != 0).unsqueeze(1)) == f"{keep}:{of}"


# apex ASP 0441afd of 2023-01-01: the name m4n2_1d; Intel Neural Compressor 6b053c8 of 2023-08-30: the text "2:4"
# (pruning_2_plus.x/test_pruning_sparsegpt.py).
@pytest.mark.parametrize("name", ["2:4", "1:4", "3:8"])
def test_patterns_by_name(name: str) -> None:
    pattern = parse(name)
    assert isinstance(pattern, NofM)
    assert f"{pattern.keep}:{pattern.of}" == pattern.name == name
