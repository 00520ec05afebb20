"""Coverage: every parameter of a model is pruned, dense for a reason, or small."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparsity_helpers import examples
from torch import nn

from hydraprune.sparsity import Coverage, Family, Layers, Magnitude, OneShot, Pruner, attach, block, coverage, mixed


class Experts(nn.Module):
    """Weights in one parameter of three dimensions, as transformers holds those of Mixtral."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.ones(4, 8, 16))
        self.down = nn.Parameter(torch.ones(4, 8, 8))


# What pruners do not take, with the words that say so: any layer, so that none is missing here by chance.
NOT_TAKEN: dict[str, nn.Module] = {
    "attention": nn.MultiheadAttention(8, 2),
    "lstm": nn.LSTM(8, 8, 2),
    "gru": nn.GRUCell(8, 8),
    "bilinear": nn.Bilinear(8, 4, 8),
    "conv3d": nn.Conv3d(2, 4, 3),
    "transposed": nn.ConvTranspose2d(4, 8, 3),
    "experts": Experts(),
    "list": nn.ParameterList([torch.ones(3, 3, 3)]),
    "embedding": nn.Embedding(10, 8),
    "bag": nn.EmbeddingBag(10, 8),
}


def pruners_of(model: nn.Module, family: Family, **layers: Layers) -> tuple[Pruner, ...]:
    plans = mixed({name: block(4, 1, 0.5, layers=own) for name, own in layers.items()})
    return attach(
        model, {n: plan.completed(Magnitude(), OneShot()) for n, plan in plans.parts.items()}, family, steps=1
    )


def reasons(found: Coverage) -> dict[str, str]:
    return {weight.name: weight.reason for weight in found.dense}


@examples(40)
@given(parts=st.lists(st.sampled_from(sorted(NOT_TAKEN)), unique=True, max_size=5), layers=st.integers(1, 3))
def test_every_parameter_is_in_one_place(parts: list[str], layers: int) -> None:
    model = nn.ModuleDict({part: NOT_TAKEN[part] for part in parts})
    model["encoder"] = nn.Sequential(*(nn.Linear(8, 8) for _ in range(layers)), nn.LayerNorm(8))
    model["head"] = nn.Linear(8, 2)
    family = Family("mine", outside=["head"])
    found = coverage(model, pruners_of(model, family, one=Layers(include=["encoder"])), family)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.covered == 64 * layers
    assert found.share == found.covered / found.parameters
    names = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    assert names == {weight.name for weight in found.pruned} | {weight.name for weight in found.dense}
    for name, reason in reasons(found).items():
        expected = {"embedding": "embedding", "bag": "embedding", "head": "outside"}.get(name.split(".")[0])
        if name == "attention.out_proj.weight":
            expected = "not chosen"  # a Linear layer
        assert reason == (expected or "unsupported"), name
    assert found.odd == (
        sum(w.parameters for w in found.unsupported)
        > 0.05 * (found.parameters - sum(w.parameters for w in found.dense if w.reason == "embedding"))
    )
    assert f"{found.covered:,} of {found.parameters:,}" in str(found)
    json.dumps(dataclasses.asdict(found))


def test_reasons_of_layers() -> None:
    names = ["query", "key", "value", "other", "conv"]
    model = nn.ModuleDict({name: nn.Conv1d(8, 8, 1) if name == "conv" else nn.Linear(8, 8) for name in names})
    model["classifier"] = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    family = Family("mine", {"query": ["query"], "key": ["key"]}, outside=["classifier"])
    pruners = pruners_of(
        model, family, one=Layers(roles=["query"]), two=Layers(include=["key", "value"], exclude=["^key$"])
    )
    found = coverage(model, pruners, family)
    assert {weight.name: weight.pruner for weight in found.pruned} == {"query.weight": "one", "value.weight": "two"}
    assert reasons(found) == {
        "key.weight": "excluded",
        "other.weight": "not chosen",
        "conv.weight": "not chosen",
        "classifier.0.weight": "outside",
        "classifier.1.weight": "outside",
    }
    assert found.small == 5 * 8 + 8 + 2
    assert found.unsupported == ()
    assert not found.odd


def test_tied_weights_count_once_and_those_of_an_embedding_are_one() -> None:
    model = nn.ModuleDict({"lm_head": nn.Linear(8, 10, bias=False), "words": nn.Embedding(10, 8)})
    model["words"].weight = model["lm_head"].weight  # type: ignore[assignment]
    model["body"] = nn.Linear(8, 8, bias=False)
    found = coverage(model, pruners_of(model, Family("mine"), one=Layers(include=["body"])))
    assert (found.parameters, found.covered) == (144, 64)
    assert reasons(found) == {"words.weight": "embedding"}


def test_a_dense_run_covers_nothing() -> None:
    found = coverage(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)), ())
    assert (found.covered, found.share, found.by_reason) == (0, 0.0, {"not chosen": 64})
    assert coverage(nn.ReLU(), ()).share == 0.0


def test_large_weights_that_no_pruner_takes_are_named() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(64, 4), "fc": nn.Linear(64, 64)})
    found = coverage(model, pruners_of(model, Family("mine"), one=Layers()))
    assert found.odd
    assert [weight.name for weight in found.unsupported] == ["attention.in_proj_weight"]
    assert "largest unsupported weight: attention.in_proj_weight (192, 64) of MultiheadAttention" in str(found)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_blueprint_has_the_same_coverage(device: str) -> None:
    with torch.device(device):
        model = nn.Sequential(nn.Linear(8, 8), nn.LSTM(8, 8))
    assert coverage(model, pruners_of(model, Family("mine"), one=Layers())).by_reason == {"unsupported": 512}
