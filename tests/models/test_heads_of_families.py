"""Heads of every family: a unit of the four (or two) weights is what one head of the model computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from family_helpers import SIZES, model_of
from torch import Tensor, nn

from hydraprune.models.families import family_of_model
from hydraprune.models.layer_roles import JOINT_ORDERS
from hydraprune.sparsity import Heads, Layers, SparsityError
from hydraprune.sparsity.groups import Structure, structures_of

# ConvBERT computes some of its outputs by convolutions, XLNet's weights are packed, Phi-3's parts differ in size.
WITHOUT = {"convbert", "xlnet", "phi3"}
HEADS = 4


def structures(model: nn.Module) -> tuple[Structure, ...]:
    family = replace(family_of_model(model), heads=HEADS)
    weights = Layers(roles=["attention", "attention_output"]).select(model, family)
    return structures_of(Heads(), weights, family)


def zero_unit(model: nn.Module, structure: Structure, unit: int) -> None:
    """Zero a unit in all weights but the output projection, and the biases of its rows."""
    for member in structure.members[:-1]:
        shape = member.weight.view_shape
        gone = torch.zeros(structure.units, dtype=torch.bool)
        gone[unit] = True
        size = member.pattern.unit_zeros(shape)
        view = member.pattern.from_units(gone.unsqueeze(1).expand(-1, size), shape)
        where = member.weight.unview(view)
        layer = model.get_submodule(member.weight.layer)
        with torch.no_grad():
            member.weight.parameter.masked_fill_(where, 0.0)
            if (bias := getattr(layer, "bias", None)) is not None:
                of_outputs = where.t() if type(layer).__name__ == "Conv1D" else where.flatten(1)
                bias.masked_fill_(of_outputs.all(1), 0.0)


def inputs_of_output(model: nn.Module, structure: Structure) -> Tensor:
    """What the output projection of a structure gets: [tokens, channels]."""
    seen: list[Tensor] = []
    layer = model.get_submodule(structure.members[-1].weight.layer)
    handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    ids = torch.tensor([[5, 9, 12, 7, 3]])
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        handle.remove()
    found = seen[0]
    if isinstance(layer, nn.Conv1d):
        found = found.transpose(1, 2)
    return found.reshape(-1, found.shape[-1])


@pytest.mark.parametrize("kind", sorted(SIZES.keys() - WITHOUT))
def test_zeroing_a_unit_silences_the_channels_of_its_heads_alone(kind: str) -> None:
    torch.manual_seed(0)
    model = model_of(kind)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and not name.endswith("v_bias"):  # DeBERTa's, which no layer has
                parameter.normal_(std=0.1)
    structure = structures(model)[0]
    before = inputs_of_output(model, structure)
    unit = structure.units - 2
    width = before.shape[1] // structure.units
    zero_unit(model, structure, unit)
    after = inputs_of_output(model, structure)
    own = slice(unit * width, (unit + 1) * width)
    if kind == "longformer":
        before, after = before[1:], after[1:]  # the first token attends by projections of its own
    assert bool((before[:, own] != 0).any())
    assert torch.equal(after[:, own], torch.zeros_like(after[:, own]))
    others = [column for column in range(before.shape[1]) if not own.start <= column < own.stop]
    assert torch.allclose(before[:, others], after[:, others], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(WITHOUT - {"xlnet"}))
def test_layouts_that_are_not_understood_are_refused(kind: str) -> None:
    with pytest.raises(SparsityError, match="exclude this attention"):
        structures(model_of(kind))


def test_every_order_of_a_joint_projection_is_tried() -> None:
    assert JOINT_ORDERS.keys() <= SIZES.keys()


def test_phi3_with_as_many_key_value_heads_has_units() -> None:
    model = model_of("phi3", num_key_value_heads=HEADS)
    assert structures(model)[0].units == HEADS
