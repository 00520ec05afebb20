"""What other pruning libraries assert of how much is pruned, and of what, restated for ours.

A comment above each test names the library, the commit of its test that was read, with its date except for PyTorch, and
the test. Where ours differs on purpose, the comment says how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from sparsity_helpers import PLAIN, linear, plan_of, prune_now, pruner_of
from torch import Tensor, nn

from hydraprune.sparsity import (
    Criterion,
    Layers,
    Magnitude,
    OneShot,
    Pattern,
    Schedule,
    SparsityError,
    attach,
    block,
    cheapest,
    layer_sparsity,
    model_sparsity,
    zeros_of,
)


@dataclass(frozen=True)
class Table(Schedule):
    """The sparsities of a list, one for each update."""

    table: tuple[float, ...] = ()

    def curve(self, x: float, initial: float, target: float) -> float:
        return self.table[round(x * (len(self.table) - 1))]


class Given(Criterion):
    """Scores that are given, whatever the weights: those of the two layers of a model."""

    uses_gradient = False

    def __init__(self, *scores: Tensor) -> None:
        self.given = scores

    def update_state(
        self, state: object, weights: Sequence[Tensor], gradients: object, pattern: Pattern
    ) -> list[Tensor]:
        return [pattern.to_cells(scores.abs().unsqueeze(1)) for scores in self.given]


def kept(model: nn.Module) -> list[int]:
    """Non-zero weights of each layer."""
    return [layer.total - layer.zeros for layer in layer_sparsity(model)]


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_compute_nparams_to_prune. 0.4 of 17 weights are 7 there,
# rounded; ours never exceed the share asked for: 6.
@pytest.mark.parametrize(("share", "of", "count"), [(0.0, 15, 0), (0.4, 17, 6), (0.4, 15, 6), (0.34, 50, 17)])
def test_how_many_weights_a_share_is(share: float, of: int, count: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(of, 1)
    prune_now(layer, block(1, 1, share))
    assert zeros_of(layer.weight.detach()) == count


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_validate_pruning_amount_init and
# test_validate_pruning_amount. Whole numbers are counts of weights there; here a target is a share, so 1500 is refused.
@pytest.mark.parametrize("amount", ["a third", None, 1.1, 20.0, -10, 1500, 1, float("nan"), True])
def test_an_amount_that_is_no_share_is_refused(amount: object) -> None:
    with pytest.raises(SparsityError, match="target_sparsity"):
        block(1, 1, amount)  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", [0.34, 0, 0.0, 0.001, 0.99])
def test_an_amount_that_is_a_share_is_taken(amount: float) -> None:
    assert block(1, 1, amount).target_sparsity == amount


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_unstructured_pruning_same_magnitude (a count and no
# threshold, which would take every weight that ties).
@pytest.mark.parametrize("seed", range(3))
def test_weights_that_tie_are_pruned_by_count(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layer = linear(
        3.0 * torch.randint(1, 3, (9, 7), generator=generator) * torch.tensor([1.0, -1] * 32)[:63].view(9, 7)
    )
    prune_now(layer, block(1, 1, 0.2))
    assert zeros_of(layer.weight.detach()) == 12


# The same test has zeros among the weights. With more zeros than the target asks for, ours refuses to bring any back.
def test_zeros_beyond_the_target_are_refused_or_given_up() -> None:
    weight = torch.tensor([[0.0, 2, -2, 0, 2], [0, -2, 2, 2, 0]])
    with pytest.raises(SparsityError, match="4 of 10 units at zero when training starts, more than the 2"):
        prune_now(linear(weight), block(1, 1, 0.2))
    layer = linear(weight)
    assert prune_now(layer, block(1, 1, 0.2, initial_sparsity=0.0)).zeros == 2


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_l1_unstructured_pruning (the two of least magnitude, of
# either sign, then the next two).
def test_the_smallest_magnitudes_go_and_then_the_next() -> None:
    layer = linear(torch.tensor([[5.0, -1, 7, 3], [-8, 2, -6, 4]]))
    prune_now(layer, block(1, 1, 0.25))
    assert torch.equal(layer.weight.detach(), torch.tensor([[5.0, 0, 7, 3], [-8, 0, -6, 4]]))
    prune_now(layer, block(1, 1, 0.5))
    assert torch.equal(layer.weight.detach(), torch.tensor([[5.0, 0, 7, 0], [-8, 0, -6, 0]]))


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_global_pruning (the least of two tensors together).
def test_the_smallest_of_two_layers_together() -> None:
    first, second = linear(torch.tensor([[4.0, -3, 0.9], [2, -5, 6]])), linear(torch.tensor([[0.1, -0.2, 8]]))
    prune_now(nn.Sequential(first, second), block(1, 1, 0.34))
    assert torch.equal(first.weight.detach(), torch.tensor([[4.0, -3, 0], [2, -5, 6]]))
    assert torch.equal(second.weight.detach(), torch.tensor([[0.0, 0, 8]]))


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_global_pruning_importance_scores and
# test_l1_unstructured_pruning_with_importance_scores (scores that are given decide, and not the weights).
def test_scores_that_are_given_decide() -> None:
    first, second = linear(torch.tensor([[1.0, 2, 3, 4]])), linear(torch.tensor([[0.1, 5.0]]))
    scores = (torch.tensor([[9.0, 0.3, -8, 7]]), torch.tensor([[6.0, -0.2]]))
    pruner = pruner_of(nn.Sequential(first, second), block(1, 1, 0.34), Given(*scores), OneShot())
    pruner.project(0)
    assert torch.equal(first.weight.detach(), torch.tensor([[1.0, 0, 3, 4]]))
    assert torch.equal(second.weight.detach(), torch.tensor([[0.1, 0]], dtype=torch.float32))


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_prune_importance_scores_mimic_default.
def test_scores_that_are_the_magnitudes_change_nothing() -> None:
    torch.manual_seed(1)
    weights = torch.randn(6, 9), torch.randn(4, 6)
    masks = []
    for method in (Magnitude(), Given(*weights)):
        pruner = pruner_of(nn.Sequential(*map(linear, weights)), block(1, 1, 0.4), method, OneShot())
        pruner.project(0)
        masks.append(pruner.masks)
    assert all(torch.equal(masks[0][name], mask) for name, mask in masks[1].items())


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_impl_test.py: testUpdateSingleMask (1 to 100, half of
# it).
def test_half_of_a_hundred() -> None:
    layer = linear(torch.linspace(1, 100, 100).reshape(10, 10))
    prune_now(layer, block(1, 1, 0.5))
    assert torch.equal(layer.weight.detach().flatten() != 0, torch.arange(100) >= 50)


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_impl_test.py: testConstructsMaskAndThresholdCorrectly (a
# share that a float holds only nearly is still two of ten); ours counts with the decimals as typed, for every share of
# a hundred.
@pytest.mark.parametrize("hundredths", range(0, 99, 7))
def test_a_share_counts_as_typed(hundredths: int) -> None:
    layer = linear(torch.arange(1.0, 101).reshape(4, 25))
    prune_now(layer, block(1, 1, hundredths / 100))
    assert zeros_of(layer.weight.detach()) == hundredths


# tensorflow_model_optimization, 029972d of 2020-01-10, pruning_impl_test.py: testConditionalMaskUpdate (counts along a
# schedule that rises in steps: a weight is pruned only where the sparsity grew).
def test_counts_follow_the_schedule_step_by_step() -> None:
    asked = (0.0, 0.2, 0.2, 0.6, 0.6, 0.8, 0.8)
    layer = linear(torch.linspace(1, 50, 50).reshape(5, 10))
    pruner = pruner_of(layer, block(1, 1, 0.8), Magnitude(), Table(frequency=1, table=asked), 6)
    counts = []
    for step in range(7):
        pruner.project(step)
        counts.append(kept(layer)[0])
    assert counts == [50, 40, 40, 20, 20, 10, 10]


# SparseML 1182c3c of 2022-04-27, test_mask_creator.py: test_sparsity_mask_creator (each of several tensors at each
# level; a level of 1 is taken there and refused here).
@pytest.mark.parametrize("level", [0.0, 0.4, 0.6, 0.9, 0.99])
def test_every_layer_has_the_share_asked_for(level: float) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(10, 8, 3), *(nn.Linear(20, 20) for _ in range(4)))
    prune_now(model, block(1, 1, level, "local", cap=1.0))
    for layer in layer_sparsity(model):
        assert layer.zeros == layer.total * round(100 * level) // 100


# SparseML 1182c3c of 2022-04-27, test_mask_creator.py: test_global_sparsity_mask_creator (exact in all, different in
# each of layers whose weights differ in size).
@pytest.mark.parametrize("level", [0.4, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("sides", [(1, 1), (1, 4)])
def test_the_share_of_all_layers_together(level: float, sides: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(*(linear(size * torch.randn(20, 20, generator=generator)) for size in range(1, 6)))
    prune_now(model, block(*sides, level, cap=1.0))
    layers = layer_sparsity(model)
    assert sum(layer.zeros for layer in layers) == 2000 * round(100 * level) // 100
    assert len({layer.zeros for layer in layers}) > 1


# SparseML 1182c3c of 2022-04-27, test_mask_creator.py: test_sparsity_mask_creator_mult_tensor (a level for each
# tensor).
def test_layers_with_targets_of_their_own() -> None:
    torch.manual_seed(4)
    levels = [0.4, 0.6, 0.8, 0.9, 0.95]
    model = nn.Sequential(*(nn.Linear(20, 10) for _ in levels))
    plans = {
        f"at {level}": plan_of(block(1, 1, level, layers=Layers(include=f"^{index}$")), Magnitude(), OneShot())
        for index, level in enumerate(levels)
    }
    for pruner in attach(model, plans, PLAIN, 1):
        pruner.project(0)
    assert [layer.zeros for layer in layer_sparsity(model)] == [80, 120, 160, 180, 190]


# NNI 947a8dd of 2022-11-21, compression/pruning/test_pruning_tools_torch.py: test_sparsity_allocator (0.8 of each of
# two convolutions, and 0.8 of both together).
@pytest.mark.parametrize("scope", ["local", "global"])
def test_two_convolutions_apart_and_together(scope: str) -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(1, 5, 5), nn.BatchNorm2d(5), nn.Conv2d(5, 10, 5))
    prune_now(model, block(1, 1, 0.8, scope))  # type: ignore[arg-type]
    assert sum(kept(model)) == 275
    assert scope == "global" or kept(model) == [25, 250]


# llm-compressor 5e6cdc6 of 2025-08-12, pytorch/utils/test_sparse.py: test_module_sparsity_info (zeros over all
# parameters, biases among them).
def test_the_sparsity_of_a_model_counts_all_its_parameters() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 7))
    nn.init.ones_(model[0].bias)
    nn.init.ones_(model[1].bias)
    model[1].weight.data.flatten()[:14] = 0.0
    assert model_sparsity(model) == pytest.approx(14 / (30 + 5 + 35 + 7))


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_prune (the two of least magnitude among eight).
def test_the_cheapest_of_a_row_of_costs() -> None:
    assert cheapest(torch.tensor([5.0, 1, 4, 1, 3]), 2).tolist() == [False, True, False, True, False]
    assert cheapest(torch.tensor([2.0, 2, 2]), 2).tolist() == [True, True, False]
    assert not cheapest(torch.tensor([1.0, 2]), 0).any()
    assert cheapest(torch.tensor([1.0, 2]), 5).all()
