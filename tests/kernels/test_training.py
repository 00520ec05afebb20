"""A layer in training against PyTorch in double precision: outputs and every gradient, for any sizes and masks."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_helpers import TARGETS
from sparsity_helpers import examples
from torch import Tensor
from trained_layer_helpers import NAMES, Case, Sizes, assert_near, case, keys, training_kernels

from hydraprune.kernels.training import LINEARS, LayerParameters, compile_training
from hydraprune.sparsity import native_code

EDGES = st.sampled_from([1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 150])


def fours(least: int, most: int) -> st.SearchStrategy[int]:
    return st.integers(least // 4, most // 4).map(lambda n: 4 * n)


SIZES = st.builds(
    Sizes,
    hidden=fours(8, 76),
    heads=st.integers(1, 4),
    size=fours(4, 36),
    inner=fours(4, 140),
    activation=st.sampled_from(["gelu", "gelu_tanh", "relu"]),
)


@pytest.mark.parametrize("target", TARGETS)
@given(
    SIZES,
    st.lists(EDGES, min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    st.tuples(*[st.sampled_from([0.0, 0.1, 0.7])] * 3),
    st.integers(0, 2**31),
)
@examples(20)
def test_any_sizes_densities_and_dropouts(
    target: str,
    sizes: Sizes,
    lengths: list[int],
    padding: int,
    density: float,
    rates: tuple[float, float, float],
    seed: int,
) -> None:
    torch.manual_seed(seed)
    one = case(sizes, lengths, density, rates, padding)
    # Where rounding decides on which side of ReLU's step a value is, gradients differ by all of it.
    assume(sizes.activation != "relu" or one.nearest_to_zero > 3e-6)
    found = one.computed(target)
    assert_near(one, found)
    assert not found[0][~one.real[:, :, 0]].any()
    assert not found[1][~one.real[:, :, 0]].any()
    for gradient, live in zip(found[2:8], one.live, strict=True):
        assert not gradient[~live].any()


@pytest.mark.parametrize("which", range(len(LINEARS)))
def test_one_linear_layer_has_no_live_block(which: int) -> None:
    torch.manual_seed(0)
    one = case(Sizes(), [20, 3, 70], rates=(0.1, 0.1, 0.1))
    with torch.no_grad():
        one.parameters.weights[which].zero_()
    one.live[which].zero_()
    found = one.computed()
    assert_near(one, found)
    assert not found[2 + which].any()


def test_live_blocks_of_which_some_rows_are_masked() -> None:
    """Patterns other than 4x1: a block is live if one of its weights is, and all of its gradients are computed."""
    torch.manual_seed(0)
    one = case(Sizes(), [20, 3, 70], density=1.0)
    masks = [torch.rand(weight.shape) < 0.1 for weight in one.parameters.weights]
    with torch.no_grad():
        for weight, mask in zip(one.parameters.weights, masks, strict=True):
            weight *= mask
    blocks = [m.view(-1, 4, m.shape[1]).any(1).repeat_interleave(4, 0) for m in masks]
    layer = replace(one, live=masks).layer()
    assert sum(4 * len(each) for each in layer.blocks) == sum(int(block.sum()) for block in blocks)
    y = layer(one.x, one.lengths, one.dropouts)
    assert_near(replace(one, live=blocks), [y.detach(), *one.gradients(y)])


def test_many_tokens_are_summed_in_several_parts() -> None:
    """More tiles of the widest inputs than stay in a cache."""
    torch.manual_seed(0)
    one = case(Sizes(hidden=64, heads=4, size=16, inner=512), [150] * 8, rates=(0.1, 0.0, 0.1))
    assert_near(one, one.computed())


# Parameters that are frozen -----------------------------------------------------------------------


def frozen(one: Case, names: set[str]) -> Case:
    """The same with parameters that need no gradient."""
    kept = [t.detach() if name in names else t for name, t in zip(NAMES, [one.x, *one.parameters.flat()], strict=True)]
    p = kept[1:]
    parameters = LayerParameters(tuple(p[:6]), tuple(p[6:12]), (p[12], p[13]), (p[14], p[15]))
    return replace(one, x=kept[0], parameters=parameters)


@given(st.sets(st.sampled_from(NAMES), max_size=len(NAMES) - 1), st.booleans())
@examples(25)
def test_frozen_parameters_get_no_gradient_and_the_others_the_same(names: set[str], drops: bool) -> None:
    torch.manual_seed(0)
    one = case(Sizes(), [20, 3, 70], rates=(0.1, 0.1, 0.1) if drops else (0, 0, 0), padding=1)
    wanted = dict(zip(NAMES, one.computed()[1:], strict=True))
    some = frozen(one, names)
    y = some.layer()(some.x, some.lengths, some.dropouts)
    left = {name: t for name, t in zip(NAMES, [some.x, *some.parameters.flat()], strict=True) if t.requires_grad}
    assert set(left) == set(NAMES) - names
    for name, gradient in zip(left, torch.autograd.grad(y, list(left.values()), one.dy), strict=True):
        assert torch.equal(gradient, wanted[name]), name


def test_nothing_to_train_and_no_grad() -> None:
    torch.manual_seed(0)
    one = case(Sizes(), [20, 3])
    wanted = one.computed()[0]
    still = frozen(one, set(NAMES))
    y = still.layer()(still.x, still.lengths, still.dropouts)
    assert not y.requires_grad
    assert torch.equal(y, wanted)
    with torch.no_grad():
        y = one.layer()(one.x, one.lengths, one.dropouts)
    assert y.grad_fn is None
    assert torch.equal(y, wanted)


# Repeated calls, threads, memory ------------------------------------------------------------------


def test_the_same_bits_whatever_the_threads_and_again() -> None:
    torch.manual_seed(0)
    one = case(Sizes(hidden=48, heads=4, size=12, inner=100), [65, 3, 128, 16, 40], rates=(0.1, 0.2, 0.3), padding=2)
    wanted = one.computed()
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            assert all(map(torch.equal, one.computed(), wanted))
    finally:
        torch.set_num_threads(1)
    y = one.layer()(one.x, one.lengths, one.dropouts)
    inputs = [one.x, *one.parameters.flat()]
    for keep in (True, False):
        again = torch.autograd.grad(y, inputs, one.dy, retain_graph=keep)
        assert all(map(torch.equal, again, wanted[1:]))


def test_an_example_does_not_depend_on_its_neighbours() -> None:
    """Nor on what lies behind its end. Bit for bit; its dropout is that of its place."""
    torch.manual_seed(0)
    lengths = [5, 70, 31, 128, 16, 1]
    one = case(Sizes(), lengths, padding=2)
    y, dx = one.computed()[:2]
    with torch.no_grad():
        x = torch.where(one.real, one.x, torch.nan).requires_grad_()
        dy = torch.where(one.real, one.dy, torch.nan)
    dirty = replace(one, x=x, dy=dy).computed()
    assert all(map(torch.equal, dirty, one.computed()))
    for row, length in enumerate(lengths):
        alone = replace(
            one,
            x=one.x[row : row + 1, :length].detach().clone().requires_grad_(),
            dy=one.dy[row : row + 1, :length],
            lengths=one.lengths[row : row + 1],
        ).computed()
        assert torch.equal(alone[0][0], y[row, :length])
        assert torch.equal(alone[1][0], dx[row, :length])


def test_inputs_and_gradients_that_are_not_contiguous() -> None:
    torch.manual_seed(0)
    one = case(Sizes(), [20, 20], rates=(0.1, 0.1, 0.1))
    wanted = one.computed()
    x = one.x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    found = replace(one, x=x, dy=one.dy.transpose(1, 2).contiguous().transpose(1, 2)).computed()
    assert all(map(torch.equal, found, wanted))
    y = one.layer()(one.x, one.lengths, one.dropouts)
    y.sum().backward()  # whose gradient is one number, expanded
    assert_near(replace(one, dy=torch.ones(1).expand_as(one.dy)), [y.detach(), *(t.grad for t in leaves(one))])  # type: ignore[misc]


def leaves(one: Case) -> list[Tensor]:
    return [one.x, *one.parameters.flat()]


def test_gradients_add_up_over_batches() -> None:
    """And the first backward pass may follow the second forward pass."""
    torch.manual_seed(0)
    one = case(Sizes(), [20, 3], rates=(0.1, 0.1, 0.1))
    two = replace(one, x=torch.randn(1, 70, 24).requires_grad_(), dy=torch.randn(1, 70, 24), dropouts=keys((0.2,) * 3))
    two = replace(two, lengths=torch.tensor([70], dtype=torch.int32))
    wanted = [a + b for a, b in zip(one.computed()[2:], two.computed()[2:], strict=True)]
    layer = one.layer()
    ys = [layer(each.x, each.lengths, each.dropouts) for each in (one, two)]
    for y, each in zip(ys, (one, two), strict=True):
        y.backward(each.dy)
    for parameter, gradient in zip(one.parameters.flat(), wanted, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("index", [0, 3, 7, 12, 15])
def test_a_parameter_that_changed_before_the_backward_pass_is_refused(index: int) -> None:
    torch.manual_seed(0)
    one = case(Sizes(), [20, 3])
    layer = one.layer()
    y = layer(one.x, one.lengths, one.dropouts)
    with torch.no_grad():
        one.parameters.flat()[index].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward(one.dy)
    again = layer(one.x, one.lengths, one.dropouts)  # reads the new value
    assert_near(one, [again.detach(), *one.gradients(again)])


def test_parameters_that_moved_to_other_memory() -> None:
    torch.manual_seed(0)
    one = case(Sizes(), [20, 3])
    layer = one.layer()
    layer(one.x, one.lengths, one.dropouts)
    for parameter in one.parameters.flat():
        parameter.data = parameter.data.clone() + 0.01 * (parameter.data != 0)
    gc.collect()
    y = layer(one.x, one.lengths, one.dropouts)
    assert_near(one, [y.detach(), *one.gradients(y)])


def test_a_copy_has_parameters_of_its_own() -> None:
    torch.manual_seed(0)
    one = case(Sizes(), [20, 3])
    layer = one.layer()
    y = layer(one.x, one.lengths, one.dropouts)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in other.parameters.flat():
            parameter.mul_(2)
    changed = other(one.x, one.lengths, one.dropouts)
    assert not torch.equal(changed, y)
    assert torch.equal(layer(one.x, one.lengths, one.dropouts), y)
    changed.backward(one.dy)
    assert all(parameter.grad is not None for parameter in other.parameters.flat())
    assert all(parameter.grad is None for parameter in one.parameters.flat())


def test_what_forward_keeps_is_freed() -> None:
    torch.manual_seed(0)
    one = case(Sizes(), [20, 3])
    layer = one.layer()
    y = layer(one.x, one.lengths, one.dropouts)
    kept = weakref.ref(y.grad_fn.saved_tensors[0])  # type: ignore[union-attr]
    y.backward(one.dy)
    with pytest.raises(RuntimeError, match="second time"):
        y.backward(one.dy)
    del y
    gc.collect()
    assert kept() is None
    whole = weakref.ref(layer)
    del layer
    gc.collect()
    assert whole() is None


def test_tensors_of_another_kind_are_refused() -> None:
    one = case(Sizes(), [3, 2])
    layer = one.layer()
    for x, lengths in (
        (one.x.double(), one.lengths),
        (one.x[0], one.lengths),
        (one.x[:, :, :20], one.lengths),
        (one.x, one.lengths.long()),
        (one.x, one.lengths[:1]),
    ):
        with pytest.raises(ValueError, match="int32"):
            layer(x, lengths, one.dropouts)


def test_second_derivatives_are_refused() -> None:
    one = case(Sizes(), [3])
    y = one.layer()(one.x, one.lengths, one.dropouts)
    (dx,) = torch.autograd.grad(y.square().sum(), one.x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


# Large numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [30.0, 1e4])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("target", TARGETS)
def test_activations_far_from_zero(target: str, activation: str, scale: float) -> None:
    torch.manual_seed(0)
    one = case(Sizes(activation=activation), [20, 3, 70], scale=scale)
    assert_near(one, one.computed(target))


@pytest.mark.parametrize("target", TARGETS)
def test_attention_to_one_token_alone(target: str) -> None:
    """Scores so far apart that all weights but one are 0."""
    torch.manual_seed(0)
    one = case(Sizes(), [20, 3, 70])
    with torch.no_grad():
        one.parameters.weights[0].mul_(300)
    found = one.computed(target)
    assert all(tensor.isfinite().all() for tensor in found)
    assert_near(one, found[:1] + one.expected(torch.float32)[1:])


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("target", TARGETS)
def test_nan_stays_in_its_example(target: str, activation: str) -> None:
    torch.manual_seed(0)
    one = case(Sizes(activation=activation), [20, 3, 70], density=1.0)
    wanted = one.computed(target)
    with torch.no_grad():
        one.x[0, 4, 2] = torch.nan
    found = one.computed(target)
    assert found[0][0, :20].isnan().all()
    assert found[1][0, :20].isnan().all()
    for after, before in zip(found[:2], wanted[:2], strict=True):
        assert torch.equal(after[1:], before[1:])
        assert not after[0, 20:].any()
    for name, gradient, own in zip(NAMES[1:], found[2:], one.expected(torch.float32)[2:], strict=True):
        assert torch.equal(gradient.isnan(), own.isnan()), name


@pytest.mark.parametrize("target", ["AVX2", "portable"])
def test_the_source_compiles_without_warnings(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training_kernels(target)
    warnings = ("-Wall", "-Wextra", "-Werror")
    monkeypatch.setattr(native_code, "_FLAGS", tuple("-O1" if f == "-O3" else f for f in native_code._FLAGS))
    compile_training(tmp_path, (*TARGETS[target], *warnings))
