"""What other pruning libraries assert of masks, of the model under them, and of saved states, restated for ours.

A comment above each test names the library, the commit of its test that was read, with its date except for PyTorch, and
the test. Where ours differs on purpose, the comment says how.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from sparsity_helpers import adamw, linear, mask_of, mlp, prune_now, pruner_of, through_a_file, train
from torch import Tensor, nn

from hydraprune.sparsity import (
    Cubic,
    Hold,
    Layers,
    Linear,
    LockZeros,
    Magnitude,
    OneShot,
    Plans,
    Pruner,
    SnipMomentum,
    SparsityError,
    block,
    layer_sparsity,
    lock,
    model_sparsity,
    n_of_m,
)

LAYER_KINDS = [lambda: nn.Linear(8, 6), lambda: nn.Conv1d(8, 6, 3), lambda: nn.Conv2d(8, 6, 3)]
OPTIMIZERS = [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.Adam(p, lr=0.1)]


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """A copy of its state."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two states have the same names and bits."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_random_pruning_sizes. torch.ao.pruning, pytorch 06d786d,
# test_structured_sparsifier.py: _check_pruner_valid_before_step (masks are bool).
@pytest.mark.parametrize("make", LAYER_KINDS, ids=["Linear", "Conv1d", "Conv2d"])
def test_a_mask_is_bool_and_shaped_like_its_weight(make: Callable[[], nn.Module]) -> None:
    layer = make()
    shape = layer.weight.shape
    mask = prune_now(layer, block(1, 1, 0.1)).masks["weight"]
    assert (mask.shape, mask.dtype, layer.weight.shape) == (shape, torch.bool, shape)


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_random_pruning_new_weight.
@pytest.mark.parametrize("make", LAYER_KINDS, ids=["Linear", "Conv1d", "Conv2d"])
def test_the_new_weight_is_the_old_one_times_the_mask(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    layer = make()
    before = layer.weight.detach().clone()
    mask = prune_now(layer, block(1, 1, 0.4)).masks["weight"]
    assert torch.equal(layer.weight.detach(), before * mask)


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_identity_pruning and test_random_pruning_0perc.
def test_a_mask_that_keeps_all_changes_neither_outputs_nor_gradients() -> None:
    torch.manual_seed(1)
    layer, inputs = nn.Linear(5, 2), torch.randn(3, 5)
    layer(inputs).sum().backward()
    output, gradients = layer(inputs), [layer.weight.grad.clone(), layer.bias.grad.clone()]
    layer.zero_grad()
    pruner = prune_now(layer, block(1, 1, 0.0))
    layer(inputs).sum().backward()
    pruner.observe(0)
    assert torch.equal(layer(inputs), output)
    assert torch.equal(layer(inputs), layer(inputs))
    assert torch.equal(layer.weight.grad, gradients[0])
    assert torch.equal(layer.bias.grad, gradients[1])


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_random_pruning_forward (outputs by hand).
def test_outputs_are_those_of_the_kept_weights() -> None:
    torch.manual_seed(2)
    layer = nn.Linear(4, 2)
    layer.weight.data = torch.tensor([[0.1, 5.0, 0.2, 0.3], [0.4, 0.1, 0.2, -7.0]])
    prune_now(layer, block(1, 1, 0.75))
    expected = torch.stack([5.0 + layer.bias[0], -7.0 + layer.bias[1]])
    torch.testing.assert_close(layer(torch.ones(1, 4))[0], expected)


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_random_pruning (a pruned weight is not moved by an
# update). There its gradient is zero; ours is that of the loss, and the weight is zero again after each step.
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["SGD", "Adam"])
def test_an_optimizer_does_not_move_pruned_weights(optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    model = mlp()
    pruner = pruner_of(model, block(1, 1, 0.5), Magnitude(), OneShot(), 6)
    masks: list[dict[str, Tensor]] = []

    def after(step: int) -> None:
        masks.append(pruner.masks)
        assert not model[0].weight.detach()[~pruner.masks["0.weight"]].any()

    train(model, [pruner], range(6), optimizer(model.parameters()), after)
    assert all(same(found, masks[0]) for found in masks)


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_remove_pruning_forward, test_remove_pruning,
# test_pruning_id_consistency. torch.ao.pruning, pytorch 02ab03f, test_sparsifier.py: test_mask_squash. There is nothing
# to remove from ours: a pruned model has the parameters of a dense one, the same objects, and nothing else.
@pytest.mark.parametrize("plans", [block(1, 1, 0.5), block(1, "channel", 0.5), n_of_m(2, 4)], ids=lambda p: p.name)
def test_a_pruned_model_is_made_like_a_dense_one(plans: Plans) -> None:
    model = mlp()
    names, identities = list(model.state_dict()), [id(parameter) for parameter in model.parameters()]
    pruner = prune_now(model, plans)
    outputs = model(torch.ones(2, 20))
    del pruner
    assert list(model.state_dict()) == names
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(torch.nn.utils.parametrize.is_parametrized(module) for module in model.modules())
    assert torch.equal(model(torch.ones(2, 20)), outputs)


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_random_pruning_pickle, test_pruning_serialization_model,
# test_pruning_serialization_state_dict.
def test_a_pruned_model_is_saved_as_it_is() -> None:
    model = mlp()
    prune_now(model, block(4, 1, 0.75))
    again = pickle.loads(pickle.dumps(model))
    assert same(tensors(again), tensors(model))
    fresh = mlp(1)
    fresh.load_state_dict(through_a_file(model.state_dict()))
    assert same(tensors(fresh), tensors(model))
    assert [layer.pattern for layer in layer_sparsity(fresh)] == ["4x1", "4x1"]


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_multiple_pruning_calls and
# test_pruning_container_compute_mask (single weights, then rows, then columns: what is zero stays zero).
def test_what_was_pruned_before_stays_pruned() -> None:
    torch.manual_seed(3)
    layer = nn.Linear(8, 8)
    zero = torch.zeros(8, 8, dtype=torch.bool)
    for plans in (block(1, 1, 0.125), block(1, "channel", 0.25), block("channel", 1, 0.25), n_of_m(2, 4)):
        prune_now(layer, plans)
        now = layer.weight.detach() == 0
        assert bool(now[zero].all())
        assert int(now.sum()) > int(zero.sum())
        zero = now


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_custom_from_mask_pruning (the mask of before and the new
# one, both).
def test_zeros_of_before_and_the_mask_hold_together() -> None:
    layer = linear(torch.tensor([[0.0, 9, 8, 0], [1, 2, 1, 2], [7, 7, 7, 7], [6, 6, 6, 0]]))
    pruner = prune_now(layer, block(1, "channel", 0.25))
    assert torch.equal(pruner.masks["weight"], mask_of([[1] * 4, [0] * 4, [1] * 4, [1] * 4]))
    both = mask_of([[0, 1, 1, 0], [0] * 4, [1] * 4, [1, 1, 1, 0]])
    assert torch.equal(layer.weight.detach() != 0, both)
    layer.weight.data += 1.0  # as an optimizer does
    pruner.project(1)
    assert torch.equal(layer.weight.detach() != 0, both)


# torch.nn.utils.prune, pytorch 058aaae, test_pruning.py: test_pruning_rollback (a failure leaves the model as it was).
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_failed_update_leaves_the_model_as_it_was(bad: float) -> None:
    model = mlp()
    model[2].weight.data[3, 5] = bad
    before = tensors(model)
    pruner = pruner_of(model, block(1, 1, 0.9), Magnitude(), OneShot(), 1)
    with pytest.raises(SparsityError, match="not finite"):
        pruner.project(0)
    assert pruner.masks == {}
    for name, tensor in tensors(model).items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)


# torch.ao.pruning, pytorch 02ab03f, test_sparsifier.py: WeightNormSparsifier.test_step (dense before, the level after,
# and still so after many steps with weights drawn anew each time).
def test_masks_do_not_collapse_when_weights_are_drawn_anew() -> None:
    layer = nn.Linear(10, 8)
    pruner = pruner_of(layer, block(1, 1, 0.5), Magnitude(), Hold(frequency=1), 200)
    assert model_sparsity(layer) == 0
    for step in range(200):
        layer.weight.data = torch.randn(8, 10, generator=torch.Generator().manual_seed(step))
        pruner.project(step)
        assert pruner.zeros == 40
        assert int((layer.weight == 0).sum()) == 40


# torch.ao.pruning, pytorch 02ab03f, test_sparsifier.py: BaseSparsifier.test_state_dict (masks differ before a state is
# loaded and are the same after it, and so is all that the state has).
def test_a_loaded_state_is_the_saved_one() -> None:
    schedule = Linear(warmup=2, frequency=2)
    models = mlp(), mlp(7)
    one, other = (pruner_of(model, block(2, 2, 0.75), SnipMomentum(), schedule, 12) for model in models)
    train(models[0], [one], range(8))
    train(models[1], [other], range(5))
    assert one.zeros > other.zeros
    assert not torch.equal(one.masks["0.weight"], other.masks["0.weight"])
    other.load_state_dict(through_a_file(one.state_dict()))
    assert same(one.masks, other.masks)
    assert one.zeros == other.zeros
    assert one.state_dict()["plan"] == other.state_dict()["plan"]
    assert same(one.state_dict()["memory"], other.state_dict()["memory"])


# torch.ao.pruning, pytorch 02ab03f: there, a sparsifier without layers of its own takes those of the state. Ours
# refuses the state of another plan.
@pytest.mark.parametrize(
    "plans",
    [block(2, 2, 0.5), block(4, 1, 0.75), n_of_m(2, 4), block(2, 2, 0.75, layers=Layers(include="^0$"))],
    ids=["target", "shape", "N:M", "layers"],
)
def test_the_state_of_another_plan_is_refused(plans: Plans) -> None:
    schedule = Linear(warmup=2, frequency=2)
    state = pruner_of(mlp(), block(2, 2, 0.75), SnipMomentum(), schedule, 12).state_dict()
    with pytest.raises(SparsityError, match="does not fit"):
        pruner_of(mlp(), plans, SnipMomentum(), schedule, 12).load_state_dict(state)


# SparseML 05307ce of 2022-02-24, helpers.py: state_dict_save_load_test (masks of a state have the sparsity applied;
# masks of zeros, written into it, zero the parameters once it is loaded). Ours refuses masks that its counts do not
# have.
def test_masks_that_were_changed_in_a_state_are_refused() -> None:
    model = mlp()
    pruner = prune_now(model, block(1, 1, 0.5))
    state = through_a_file(pruner.state_dict())
    assert sum(int((~mask).sum()) for mask in state["masks"].values()) == 600
    for mask in state["masks"].values():
        mask.zero_()
    with pytest.raises(SparsityError, match="does not fit"):
        pruner.load_state_dict(state)
    assert pruner.zeros == 600


# apex ASP 2a5b726 of 2020-06-10, test/checkpointing_test_part1.py, part2 and reference (dense steps, sparse steps, a
# checkpoint, more sparse steps in a process of its own: as without the break); apex ASP 16fadfe of 2025-11-28, part2.
@pytest.mark.parametrize("plans", [n_of_m(2, 4), block(4, 1, 0.5)], ids=lambda p: p.name)
def test_training_goes_on_from_a_checkpoint_bit_for_bit(plans: Plans) -> None:
    def pieces(seed: int) -> tuple[nn.Sequential, Pruner, torch.optim.Optimizer]:
        model = mlp(seed)
        return model, pruner_of(model, plans, Magnitude(), OneShot(warmup=4), 16), adamw(model)

    model, pruner, optimizer = pieces(0)
    train(model, [pruner], range(9), optimizer)
    saved = through_a_file([model.state_dict(), pruner.state_dict(), optimizer.state_dict()])
    train(model, [pruner], range(9, 16), optimizer)
    other, resumed, second = pieces(5)
    for thing, state in zip((other, resumed, second), saved, strict=True):
        thing.load_state_dict(state)
    train(other, [resumed], range(9, 16), second)
    assert same(tensors(other), tensors(model))
    assert all(layer.pattern == plans.name for layer in layer_sparsity(other))


# apex ASP 2a5b726 of 2020-06-10, test/toy_problem.py: masks are computed a second time from the weights of then, and
# the model is still 2:4. It brings pruned weights back by a copy of them; ours keeps none.
def test_masks_that_are_chosen_again() -> None:
    model = mlp()
    pruner = pruner_of(model, n_of_m(2, 4), Magnitude(), Hold(warmup=3, cooldown=3, frequency=6), 18)
    seen: list[dict[str, Tensor]] = []
    train(model, [pruner], range(18), after=lambda step: seen.append(pruner.masks))
    assert [bool(masks) for masks in seen[2:4]] == [False, True]
    assert all(same(masks, seen[3]) for masks in seen[3:])  # by magnitude, a weight that is zero is the least
    assert pruner.zeros == 600


# llm-compressor 7359e1b of 2025-09-21, pytorch/modifiers/pruning/constant/test_pytorch.py:
# test_constant_pruning_modifier_e2e (zeros of a sparse model are where they were after its weights were all set to one,
# for two optimizers and kinds of layers).
@pytest.mark.parametrize("make", LAYER_KINDS, ids=["Linear", "Conv1d", "Conv2d"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["SGD", "Adam"])
def test_zeros_that_are_kept(make: Callable[[], nn.Module], optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    torch.manual_seed(4)
    layer = make()
    layer.weight.data *= torch.rand(layer.weight.shape) > 0.5
    zero, shape = layer.weight.detach() == 0, (4, 8) if layer.weight.ndim == 2 else (4, 8, *layer.weight.shape[2:])
    pruner = pruner_of(layer, lock(), LockZeros(), OneShot(), 6)
    pruner.project(0)
    steps = optimizer(layer.parameters())
    for step in range(5):
        steps.zero_grad()
        layer(torch.randn(shape)).square().mean().backward()
        pruner.observe(step)
        steps.step()
        pruner.project(step + 1)
    assert torch.equal(layer.weight.detach() == 0, zero)
    layer.weight.data.fill_(1.0)
    pruner.project(6)
    assert torch.equal(layer.weight.detach(), (~zero).float())


# Intel Neural Compressor 381ac9d of 2023-08-28, pruning_1.x_v1/test_pattern_lock.py: nine tenths of a convolution at
# random are zero before a training and the same ones after it.
def test_a_locked_convolution_keeps_its_pattern() -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    weight = model[0].weight.data
    zero = torch.randperm(weight.numel()).view(weight.shape) < round(weight.numel() * 0.9)
    weight[zero] = 0.0
    pruner = pruner_of(model, lock(Layers(include="^0$")), LockZeros(), OneShot(), 10)
    pruner.project(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(10):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        pruner.observe(step)
        optimizer.step()
        pruner.project(step + 1)
    assert torch.equal(model[0].weight.detach() == 0, zero)
    assert bool((model[2].weight != 0).all())


# torch.ao.pruning, pytorch 02ab03f, test_sparsifier.py: test_convert leaves the given model as it is. Ours changes the
# model that it is attached to, and no copy of it.
def test_a_copy_is_not_pruned_with_the_model() -> None:
    model = mlp()
    average = copy.deepcopy(model)
    pruner = pruner_of(model, block(1, 1, 0.5), Magnitude(), Cubic(warmup=1, frequency=2), 9)
    train(model, [pruner], range(9))
    assert model_sparsity(average) == 0
    pruner.apply_to(average)
    assert all(torch.equal(average.state_dict()[name] != 0, mask) for name, mask in pruner.masks.items())
