"""Layers: which weights a plan chooses, and the errors of a choice that is empty."""

from __future__ import annotations

import ast
import re

import pytest
import torch
from sparsity_helpers import PLAIN
from torch import nn

from hydraprune.sparsity import Exp, Family, Layers, Magnitude, SparsityError, attach, block

BERTISH = Family(
    "bertish",
    roles={
        "query": [r"encoder\.\d+\.query"],
        "key": [r"encoder\.\d+\.key"],
        "value": [r"encoder\.\d+\.value"],
        "attention_output": [r"encoder\.\d+\.out"],
        "ffn_in": [r"encoder\.\d+\.up"],
        "ffn_out": [r"encoder\.\d+\.down"],
    },
    outside=("classifier",),
)


class Part(nn.Module):
    """One layer of an encoder."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("query", "key", "value", "out"):
            self.add_module(name, nn.Linear(4, 4))
        self.norm = nn.LayerNorm(4)
        self.up = nn.Linear(4, 8)
        self.down = nn.Linear(8, 4)


class Model(nn.Module):
    """Two layers, an embedding, and two heads whose names share a part."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.encoder = nn.ModuleList([Part(), Part()])
        self.pre_classifier = nn.Linear(4, 4)
        self.classifier = nn.Linear(4, 2)


def names(layers: Layers, model: nn.Module | None = None, family: Family = BERTISH) -> list[str]:
    return [weight.name.removesuffix(".weight") for weight in layers.select(model or Model(), family)]


def parts(*which: str) -> list[str]:
    return [f"encoder.{i}.{name}" for i in range(2) for name in which]


def test_by_default_every_layer_inside_the_encoder() -> None:
    # `classifier` is an exact name: `pre_classifier` stays in, and so nothing else is left out.
    assert names(Layers()) == [*parts("query", "key", "value", "out", "up", "down"), "pre_classifier"]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["query"], parts("query")),
        (["attention"], parts("query", "key", "value")),
        (["ffn"], parts("up", "down")),
        (["ffn", "attention_output"], parts("out", "up", "down")),
        (["key", "attention"], parts("query", "key", "value")),
    ],
)
def test_roles(roles: list[str], expected: list[str]) -> None:
    assert names(Layers(roles=roles)) == expected


def test_names_are_searched() -> None:
    assert names(Layers(include=[r"\.0\.(query|up)"])) == ["encoder.0.query", "encoder.0.up"]
    assert names(Layers(include=["classifier"])) == ["pre_classifier"]


def test_roles_and_names_are_joined_and_exclusions_win() -> None:
    layers = Layers(roles=["query"], include=["down"], exclude=[r"encoder\.1"])
    assert names(layers) == ["encoder.0.query", "encoder.0.down"]


def test_the_order_is_that_of_the_model() -> None:
    assert names(Layers(include=["down", "query"])) == parts("query", "down")


def test_a_role_matches_whole_names_only() -> None:
    family = Family("f", roles={"query": [r"encoder\.0\.q"]})
    assert family.role_of("encoder.0.query") is None
    assert BERTISH.role_of("encoder.0.query") == "query"
    assert BERTISH.role_of("x.encoder.0.query") is None


def test_types() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(4, 4), nn.Conv1d(4, 4, 1), nn.LayerNorm(4))
    assert names(Layers(), model) == ["0", "1", "2"]
    assert names(Layers(types=["Linear"]), model) == ["1"]
    assert names(Layers(types=["Conv1d", "Conv2d"]), model) == ["0", "2"]


def test_only_the_types_named_and_their_subclasses() -> None:
    class Wide(nn.Linear):
        pass

    model = nn.Sequential(
        nn.Embedding(4, 4), nn.ConvTranspose1d(4, 4, 1), nn.Bilinear(4, 4, 4), nn.BatchNorm1d(4), Wide(4, 4)
    )
    assert names(Layers(), model) == ["4"]


def test_transformers_conv1d_is_found_by_name() -> None:
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    model = nn.Sequential(pytorch_utils.Conv1D(8, 4), nn.Conv1d(4, 4, 1))
    (weight,) = Layers(types=["Conv1D"]).select(model, PLAIN)
    assert weight.name == "0.weight"
    assert weight.view_shape == (8, 1, 4)


def test_the_model_may_be_a_single_layer() -> None:
    (weight,) = Layers().select(nn.Conv2d(3, 5, (2, 7)), PLAIN)
    assert weight.name == "weight"
    assert weight.view_shape == (5, 14, 3)


@pytest.mark.parametrize("key", ["roles", "include", "exclude", "types"])
def test_a_lone_string_is_one_word(key: str) -> None:
    word = {"roles": "query", "include": "query", "exclude": "query", "types": "Linear"}[key]
    assert getattr(Layers(**{key: word}), key) == (word,)
    assert names(Layers(**{key: word})) == names(Layers(**{key: [word]}))


def test_lone_strings_of_a_family_are_one_word() -> None:
    family = Family("lone", roles={"query": r"encoder\.\d+\.query"}, outside="pre_classifier")
    assert family.role_of("encoder.0.query") == "query"
    # Read as a collection of letters, the string would also hold every part of itself.
    assert names(Layers(include="classifier"), family=family) == ["classifier"]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (Layers(roles=["pooler"]), ["roles=pooler", "bertish", "query", "ffn_out", "attention", "ffn"]),
        (Layers(roles=["query", "head"]), ["roles=head"]),
        (Layers(include=["decoder"]), ["include=decoder", "encoder.0.query"]),
        (Layers(exclude=["decoder"]), ["exclude=decoder", "encoder.0.query"]),
        (Layers(include=["^classifier$"]), ["include=^classifier$"]),
        (Layers(exclude=["."]), ["no layer is left", "exclude"]),
        (Layers(roles=["query"], exclude=["query"]), ["no layer is left"]),
        (Layers(types=["Conv2d"]), ["no layer is left", "Conv2d"]),
    ],
)
def test_a_selector_that_matches_nothing_is_refused(layers: Layers, words: list[str]) -> None:
    with pytest.raises(SparsityError) as error:
        layers.select(Model(), BERTISH)
    assert all(word in str(error.value) for word in words)


def test_roles_of_a_family_without_roles() -> None:
    with pytest.raises(SparsityError, match=r"roles=query: .*plain.*none"):
        Layers(roles=["query"]).select(Model(), PLAIN)


@pytest.mark.parametrize("name", ["linear", "LayerNorm", "Embedding", "L"])
def test_an_unknown_type_is_refused(name: str) -> None:
    with pytest.raises(SparsityError, match=rf"types={name}: .*Linear, Conv1d, Conv2d, Conv1D"):
        Layers(types=[name])


@pytest.mark.parametrize("key", ["roles", "include", "exclude", "types"])
def test_a_selector_must_be_text(key: str) -> None:
    with pytest.raises(SparsityError, match=f"{key}=3: must be text"):
        Layers(**{key: [3]})


@pytest.mark.parametrize("key", ["include", "exclude"])
@pytest.mark.parametrize("value", ["(", "*"])
def test_a_broken_expression_is_refused(key: str, value: object) -> None:
    with pytest.raises(SparsityError, match=re.escape(f"{key}={value}: not a regular expression")):
        Layers(**{key: [value]})


def test_a_computed_weight_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(SparsityError, match=r"^1: .*parametrized.*exclude"):
        Layers().select(model, PLAIN)
    assert names(Layers(exclude=["1"]), model) == ["0"]


# A misfit's cure ----------------------------------------------------------------------------------


def cure(message: str) -> list[str]:
    found = re.search(r"layers\.exclude=(\[.*\])", message)
    assert found is not None
    return ast.literal_eval(found.group(1))


def misfit(model: nn.Module, layers: Layers | None = None) -> str:
    plan = block(4, 1, 0.5, layers=layers).parts["4x1"].completed(Magnitude(), Exp())
    with pytest.raises(SparsityError) as error:
        attach(model, {"mine": plan}, PLAIN, steps=10)
    return str(error.value)


def test_a_misfit_names_layer_reason_and_cure() -> None:
    message = misfit(nn.ModuleDict({"even": nn.Linear(5, 8), "odd": nn.Linear(5, 6)}))
    assert all(word in message for word in ("4x1", "odd.weight", "(6, 5)", "4 does not divide its 6 rows"))
    assert "even" not in message
    assert cure(message) == ["^odd$"]


def test_more_misfits_are_counted() -> None:
    assert "and 2 more" in misfit(nn.Sequential(*(nn.Linear(4, 6) for _ in range(3))))


def test_the_cure_of_a_misfit_excludes_that_layer_only() -> None:
    model = nn.ModuleDict({"fc1": nn.Linear(5, 6), "fc10": nn.Linear(5, 8), "my_fc1": nn.Linear(5, 8)})
    layers = Layers(exclude=cure(misfit(model)))
    assert names(layers, model, PLAIN) == ["fc10", "my_fc1"]


# Nothing leaks ------------------------------------------------------------------------------------


def test_two_selections_do_not_leak_into_each_other() -> None:
    mine = ["query"]
    layers = Layers(include=mine)
    mine.append("key")
    assert layers.include == ("query",)
    assert names(layers) == parts("query")
    assert mine == ["query", "key"]


def test_names_outside_the_encoder_depend_on_the_family() -> None:
    # The published tool's list of exclusions grew from model to model: `fc` then took `fc1` with it.
    first = nn.ModuleDict({"body": nn.Linear(4, 4), "fc": nn.Linear(4, 4)})
    second = nn.ModuleDict({"fc1": nn.Linear(4, 4), "fc2": nn.Linear(4, 4)})
    layers = Layers()
    assert names(layers, first, Family("first", outside=["fc"])) == ["body"]
    assert names(layers, second, PLAIN) == ["fc1", "fc2"]
    assert layers == Layers()


def test_two_default_plans_share_no_state() -> None:
    one, other = block(4, 1, 0.9), block(4, 1, 0.5)
    one.parts["4x1"].completed(Magnitude(), Exp(warmup=7))
    assert other.parts["4x1"].selection.target_sparsity == 0.5
    assert other.parts["4x1"].criterion is None
    assert one.parts["4x1"].schedule is None


def test_selecting_changes_nothing() -> None:
    model = Model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Layers().select(model, BERTISH)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
