"""What other pruning libraries assert of pruning methods, restated for ours.

A comment above each test names the library, the commit of its test that was read, with its date except for PyTorch, and
the test. Where ours differs on purpose, the comment says how.
"""

from __future__ import annotations

import math

import pytest
import torch
from posttraining_helpers import ATTENTION, Attention, batches_of, calibrated, double
from sparsity_helpers import mlp, pruner_of, train
from torch import Tensor, nn

from hydraprune.sparsity import (
    Cubic,
    Exp,
    GroupLasso,
    Hold,
    Layers,
    Magnitude,
    Movement,
    Plans,
    PostTraining,
    RetrainFree,
    Rigl,
    Snip,
    SparseGpt,
    SparsityError,
    Wanda,
    block,
    layer_sparsity,
    n_of_m,
)
from hydraprune.sparsity.plans import heads

METHODS = [Wanda(), SparseGpt()]


def by_class(value: object) -> str:
    """An id for a test."""
    return type(value).__name__


def stack(seed: int = 0, layers: int = 2, width: int = 24) -> nn.Sequential:
    """Linear layers in double precision."""
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(width, width, dtype=torch.float64) for _ in range(layers)))


def squared_error(layer: nn.Linear, dense: Tensor, inputs: Tensor) -> float:
    """Of a layer's outputs, against those of the dense weight."""
    return float((inputs @ (layer.weight.detach() - dense).t()).square().sum())


# torch.ao.pruning, pytorch 8087ff4, test_wanda_sparsifier.py: test_one_layer_mlp_2x4 (inputs that are all one: the two
# smaller of every four go).
def test_wanda_under_two_of_four_with_equal_inputs() -> None:
    layer = double(torch.tensor([[4.0, -3, 2, 1, 0.5, 6, -7, 0.1]]))
    calibrated(layer, n_of_m(2, 4), Wanda(), [torch.ones(1, 8, dtype=torch.float64)])
    assert layer.weight.tolist() == [[4.0, -3, 0, 0, 0, 6, -7, 0]]


# torch.ao.pruning, pytorch 8087ff4, test_wanda_sparsifier.py: test_one_layer_mlp_unstructured (small weights with large
# inputs stay, and large ones with small inputs go).
def test_wanda_weighs_by_the_inputs() -> None:
    layer = double(torch.tensor([[8.0, 4, 2, 1]]))
    inputs = torch.tensor([[0.01, 0.1, 5.0, 50.0]], dtype=torch.float64)
    calibrated(layer, block(1, 1, 0.5), Wanda(), [inputs])
    assert layer.weight.tolist() == [[0.0, 0, 2, 1]]


# torch.ao.pruning, pytorch 8087ff4, test_wanda_sparsifier.py: test_two_layer_mlp_unstructured (two batches, half of
# each layer). Intel Neural Compressor 07d23e3 of 2023-12-20, pruning_2_plus.x/test_wanda.py (0.8 of every layer of
# every block), and pruning_2_plus.x/test_pruning_sparsegpt.py at 6b053c8 of 2023-08-30 (0.65 of single weights and 0.5
# by 2:4).
@pytest.mark.parametrize("method", METHODS, ids=by_class)
@pytest.mark.parametrize(
    ("plans", "zeros"),
    [(block(1, 1, 0.5), 288), (block(1, 1, 0.8), 460), (block(1, 1, 0.65), 374), (n_of_m(2, 4), 288)],
)
def test_every_layer_loses_its_share(method: PostTraining, plans: Plans, zeros: int) -> None:
    model = stack()
    pruner = calibrated(model, plans, method, batches_of(24, 2))
    assert [layer.zeros for layer in layer_sparsity(model)] == [zeros, zeros]
    assert pruner.at_target


# torch.ao.pruning, pytorch 8087ff4, test_wanda_sparsifier.py: test_squash_mask (no observer is left on the model).
@pytest.mark.parametrize("method", METHODS, ids=by_class)
def test_nothing_is_left_on_the_model(method: PostTraining) -> None:
    model = stack()
    names, training = list(model.state_dict()), model.training
    calibrated(model, block(1, 1, 0.5), method, batches_of(24))
    assert list(model.state_dict()) == names
    assert model.training is training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# llm-compressor 25ad2c2 of 2025-12-12, transformers/sparsegpt/test_mask_structure_preservation.py: 2:4 first, then a
# higher sparsity without a pattern: the zeros of the first are among those of the second.
@pytest.mark.parametrize("first", METHODS, ids=by_class)
@pytest.mark.parametrize("second", METHODS, ids=by_class)
def test_two_of_four_outlives_a_second_pruning(first: PostTraining, second: PostTraining) -> None:
    model, batches = stack(1), batches_of(24)
    calibrated(model, n_of_m(2, 4), first, batches)
    zero = [layer.weight.detach() == 0 for layer in model]
    assert [layer.pattern for layer in layer_sparsity(model)] == ["2:4", "2:4"]
    calibrated(model, block(1, 1, 0.75), second, batches)
    assert [layer.zeros for layer in layer_sparsity(model)] == [432, 432]
    assert all(bool((layer.weight.detach() == 0)[was].all()) for layer, was in zip(model, zero, strict=True))


# llm-compressor 1bb9f62 of 2025-09-26, transformers/sparsegpt/test_consecutive_runs.py: half of a layer, and 0.7 of it
# in a second run.
@pytest.mark.parametrize("method", METHODS, ids=by_class)
def test_two_runs_one_after_the_other(method: PostTraining) -> None:
    model, batches = stack(2), batches_of(24)
    for target, zeros in ((0.5, 288), (0.7, 403)):
        calibrated(model, block(1, 1, target), method, batches)
        assert [layer.zeros for layer in layer_sparsity(model)] == [zeros, zeros]


# llm-compressor 075ac5f of 2025-09-26, transformers/sparsegpt/test_sparsegpt_sparsity.py: a layer that is named has the
# sparsity of the recipe, and the next one that is not named has none.
@pytest.mark.parametrize("method", METHODS, ids=by_class)
def test_a_layer_that_is_not_named_stays_dense(method: PostTraining) -> None:
    model = stack(3, 3)
    before = model[2].weight.detach().clone()
    calibrated(model, block(1, 1, 0.5, layers=Layers(include="^[01]$")), method, batches_of(24))
    assert [layer.zeros for layer in layer_sparsity(model)] == [288, 288, 0]
    assert torch.equal(model[2].weight.detach(), before)


# SparseGPT in Intel Neural Compressor 6b053c8 of 2023-08-30 and llm-compressor 09ff1d8 of 2025-09-24 prunes and
# compensates; both test counts only. What compensation is for: the outputs are nearer to the dense ones than with the
# same mask alone, and than Wanda's.
@pytest.mark.parametrize("plans", [block(1, 1, 0.6), n_of_m(2, 4)], ids=lambda p: p.name)
def test_compensation_lowers_the_error_of_the_outputs(plans: Plans) -> None:
    batches = batches_of(24)
    inputs, errors = torch.cat(batches), []
    dense = torch.randn(16, 24, generator=torch.Generator().manual_seed(4)).double()
    for method in (SparseGpt(), Wanda()):
        layer = double(dense)
        mask = calibrated(layer, plans, method, batches).masks["weight"]
        errors.append(squared_error(layer, dense, inputs))
        layer.weight.data = dense * mask
        errors.append(squared_error(layer, dense, inputs))
    assert errors[0] < errors[1]
    assert errors[0] < errors[2] == errors[3]


# NNI 6ea069c of 2023-05-23, compression/pruning/test_pruner.py: test_slim_taylor_pruner (the first-order score |w g|:
# 0.75 of each layer); a weight whose gradient is zero goes before a small one that has one.
def test_the_first_order_score_is_that_of_the_loss() -> None:
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[9.0, 0.5, -2.0, 0.1]])
    pruner = pruner_of(layer, block(1, 1, 0.5), Snip(), Exp(warmup=1, frequency=1), 1)
    pruner.project(0)
    layer(torch.tensor([[0.0, 2.0, 1.0, 3.0]])).sum().backward()
    pruner.observe(0)
    pruner.project(1)
    assert layer.weight.tolist() == [[0.0, 0.5, -2.0, 0.0]]


# NNI 6ea069c of 2023-05-23, compression/pruning/test_pruner.py: test_mvp_pruner. SparseML 55a7881 of 2022-03-14,
# test_modifier_pruning_movement.py. Weights that move towards zero go, whatever their size.
def test_movement_keeps_what_moves_away_from_zero() -> None:
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[5.0, -5.0, 0.1, -0.1]])
    pruner = pruner_of(layer, block(1, 1, 0.5), Movement(), Exp(warmup=3, frequency=1), 3)
    pruner.project(0)
    for step in range(3):
        layer.weight.grad = torch.tensor([[1.0, -1.0, -1.0, 1.0]])  # a step shrinks the first two, grows the others
        pruner.observe(step)
        pruner.project(step + 1)
    assert pruner.masks["weight"].tolist() == [[False, False, True, True]]


# SparseML 2a1b26c of 2023-07-07, test_modifier_pruning_rigl.py: test_lifecycle (the sparsity is the same at every
# update; nothing before the first), with the three distributions over layers that it has.
@pytest.mark.parametrize(("target", "scope"), [(0.9, "erk"), (0.7, "local"), (0.5, "erk"), (0.8, "global")])
def test_rigl_exchanges_weights_at_one_sparsity(target: float, scope: str) -> None:
    model = mlp()
    plans = block(1, 1, target, scope)  # type: ignore[arg-type]
    pruner = pruner_of(model, plans, Rigl(), Hold(warmup=4, cooldown=2, frequency=3), 18)
    counts: list[int] = []
    masks: list[Tensor] = []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(19):
        pruner.project(step, optimizer)
        counts.append(pruner.zeros)
        masks.append(pruner.masks.get("0.weight", torch.ones(20, 20, dtype=torch.bool)))
        optimizer.zero_grad()
        model(torch.randn(8, 20, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        pruner.observe(step)
        optimizer.step()
    assert set(counts[:4]) == {0}
    assert set(counts[4:]) == {int(1200 * round(10 * target) / 10)}
    assert not torch.equal(masks[4], masks[-1])


# SparseML 2a1b26c of 2023-07-07, modifier_pruning_rigl.py: erdos_renyi keeps (rows + columns) / (rows x columns) times
# one factor.
def test_erdos_renyi_keeps_by_the_sides_of_a_layer() -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(10, 90), nn.Linear(90, 30), nn.Linear(30, 30))
    pruner = pruner_of(model, block(1, 1, 0.8, "erk", cap=1.0), Magnitude(), Hold(), 1)
    pruner.project(0)
    layers = layer_sparsity(model)
    factors = [(layer.total - layer.zeros) / sum(layer.shape) for layer in layers]
    assert max(factors) - min(factors) < 0.05
    assert sum(layer.zeros for layer in layers) == 3600


# Torch-Pruning 01893e3 of 2024-03-10, test_regularization.py (a group regularizer before pruning). Intel Neural
# Compressor d36fef9 of 2023-09-14, pruning_1.x_v1/test_pruning_group_lasso.py, on blocks of its own. Ours is the
# proximal step: a whole group shrinks by one factor, to zero.
def test_a_group_shrinks_as_a_whole() -> None:
    layer = nn.Linear(4, 8, bias=False)
    layer.weight.data = torch.arange(1.0, 33).reshape(8, 4) * torch.tensor([1.0, -1, 1, -1])
    layer.weight.data[:, 3] *= 1e-4
    before = layer.weight.detach().clone()
    schedule = Cubic(warmup=1, frequency=5)
    pruner = pruner_of(layer, block(4, 1, 0.5), Snip(), schedule, 11, regularizer=GroupLasso(0.5))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    pruner.project(0, optimizer)
    pruner.project(2, optimizer)
    ratio = (layer.weight.detach() / before).unflatten(0, (2, 4))
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert not layer.weight[:, 3].any()
    norms = before.unflatten(0, (2, 4)).norm(dim=1)[:, :3]
    torch.testing.assert_close(ratio[:, 0, :3], 1 - 0.1 * 0.5 * math.sqrt(4) / norms)


# Intel Neural Compressor f77a2c7 of 2023-08-28, pruning_2_plus.x/test_pruning_retrain_free.py (channels pruned from
# calibration batches, without training). TextPruner 041c61e of 2022-01-26, README: heads removed to a target without
# training.
@pytest.mark.parametrize(("target", "kept"), [(0.25, 3), (0.5, 2), (0.75, 1)])
def test_heads_go_without_training(target: float, kept: int) -> None:
    torch.manual_seed(7)
    model = Attention()
    batches = batches_of(8)
    pruner = calibrated(model, heads(target), RetrainFree(), batches, ATTENTION)
    rows = pruner.masks["query.weight"].unflatten(0, (4, 2)).flatten(1)
    assert torch.equal(rows.all(1), rows.any(1))
    assert int(rows.any(1).sum()) == kept
    columns = pruner.masks["output.weight"].t().reshape(4, -1).any(1)
    assert torch.equal(columns, rows.any(1))
    # Removing them for good, as TextPruner does, gives the same outputs: their gates may as well be closed.
    output = model(batches[0])
    model.gates = columns.double()
    torch.testing.assert_close(model(batches[0]), output)


# Intel Neural Compressor f77a2c7 of 2023-08-28, pruning_2_plus.x/test_pruning_retrain_free.py: 0.4 of the input
# channels of a layer, one or two at a time, from calibration batches.
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_input_channels_go_without_training(columns: int, scope: str) -> None:
    model = stack(9, width=20)
    plans = block("channel", columns, 0.4, scope)  # type: ignore[arg-type]
    pruner = calibrated(model, plans, RetrainFree(), batches_of(20))
    units = [mask.unflatten(1, (20 // columns, columns)).transpose(0, 1).flatten(1) for mask in pruner.masks.values()]
    assert all(torch.equal(mask.all(1), mask.any(1)) for mask in units)
    gone = [int((~mask.any(1)).sum()) * columns for mask in units]
    assert sum(gone) == 16
    assert scope == "global" or gone == [8, 8]


# TextPruner 041c61e of 2022-01-26, README: target_num_of_heads, a mean over layers or the same in each
# (head_even_masking).
@pytest.mark.parametrize("scope", ["local", "global"])
def test_heads_of_several_layers_evenly_or_not(scope: str) -> None:
    torch.manual_seed(8)
    model = nn.Sequential(Attention(), Attention(), Attention())
    model[1].query.weight.data *= 10
    pruner = calibrated(model, heads(0.5, scope), RetrainFree(), batches_of(8), ATTENTION)  # type: ignore[arg-type]
    kept = [int(pruner.masks[f"{i}.query.weight"].any(1).sum()) // 2 for i in range(3)]
    assert sum(kept) == 6
    assert scope == "global" or kept == [2, 2, 2]


# torch.ao.pruning, pytorch 06d786d, test_structured_sparsifier.py: test_compute_distance and test_update_mask of the
# FPGM pruner, which keeps the filter of least norm where another is redundant. Ours has no such score: by magnitude,
# the least goes.
def test_the_filter_of_least_norm_goes() -> None:
    layer = nn.Conv2d(1, 3, 3, bias=False)
    layer.weight.data = torch.tensor([3.0, 2.0, 0.1])[:, None, None, None].expand(3, 1, 3, 3).clone()
    pruner = pruner_of(layer, block(1, "channel", 0.34), Magnitude(), Hold(), 1)
    pruner.project(0)
    assert pruner.masks["weight"].flatten(1).any(1).tolist() == [True, True, False]


# SparseML 2a1b26c of 2023-07-07, test_modifier_pruning_rigl.py prunes single weights only. Ours takes blocks, and
# refuses N:M by name.
def test_rigl_refuses_groups_that_all_lose_alike() -> None:
    with pytest.raises(SparsityError, match="rigl"):
        pruner_of(mlp(), n_of_m(2, 4), Rigl(), Hold(warmup=1, frequency=2), 9)
    model = mlp()
    pruner = pruner_of(model, block(4, 1, 0.5), Rigl(), Hold(warmup=1, frequency=2), 9)
    train(model, [pruner], range(9))
    assert pruner.zeros == 600
    assert all(bool(mask.unflatten(0, (-1, 4)).sum(1).remainder(4).eq(0).all()) for mask in pruner.masks.values())
