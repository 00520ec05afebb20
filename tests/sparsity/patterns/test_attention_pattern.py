"""Heads of attentions whose key and value have fewer heads than query, and of several attentions in one block."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sparsity_helpers import examples, pruner_of
from torch import Tensor, nn

from hydraprune.sparsity import (
    Family,
    Layers,
    Magnitude,
    OneShot,
    Pruner,
    SparsityError,
    attach,
    heads,
    holds_pattern,
)

HIDDEN = 12
ROLES = ("query", "key", "value", "attention_output")


class GroupedAttention(nn.Module):
    """Attention in which `queries / shared` query heads read one key-value head; `width`, `given`: of one head."""

    def __init__(self, queries: int, shared: int, width: int, given: int | None = None) -> None:
        super().__init__()
        given = width if given is None else given
        self.sizes = (queries, shared, width, given)
        self.q = nn.Linear(HIDDEN, queries * width, bias=False)
        self.k = nn.Linear(HIDDEN, shared * width, bias=False)
        self.v = nn.Linear(HIDDEN, shared * given, bias=False)
        self.o = nn.Linear(queries * given, HIDDEN, bias=False)

    def forward(self, inputs: Tensor, without: Sequence[int] = ()) -> Tensor:
        """Computed head by head; the query heads of the key-value heads `without` add nothing."""
        queries, shared, width, given = self.sizes
        output = torch.zeros_like(inputs)
        for head in range(queries):
            group = head * shared // queries
            if group in without:
                continue
            q = self.q(inputs)[..., head * width : (head + 1) * width]
            k = self.k(inputs)[..., group * width : (group + 1) * width]
            v = self.v(inputs)[..., group * given : (group + 1) * given]
            mixed = (q @ k.transpose(-1, -2) / width**0.5).softmax(-1) @ v
            output = output + mixed @ self.o.weight[:, head * given : (head + 1) * given].t()
        return output


FAMILY = {role: [rf"(.*\.)?{name}"] for role, name in zip(ROLES, "qkvo", strict=True)}


def head_pruner(model: nn.Module, count: int, target: float) -> Pruner:
    family = Family("grouped", FAMILY, heads=count)
    return pruner_of(model, heads(target, cap=1.0), Magnitude(), OneShot(), 1, family=family)


@examples(60)
@given(
    group=st.integers(1, 4),
    shared=st.integers(2, 4),
    width=st.integers(1, 4),
    given_=st.integers(1, 4),
    target=st.floats(0.1, 0.9),
    seed=st.integers(0, 99),
)
def test_a_key_value_head_goes_with_all_that_read_it(
    group: int, shared: int, width: int, given_: int, target: float, seed: int
) -> None:
    torch.manual_seed(seed)
    model = GroupedAttention(group * shared, shared, width, given_).double()
    inputs = torch.randn(2, 5, HIDDEN, dtype=torch.float64)
    pruner = head_pruner(model, group * shared, target)
    (structure,) = pruner.structures
    assert structure.units == shared
    assert structure.total == sum(weight.numel() for weight in model.parameters())
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    pruner.project(0)
    key = (model.k.weight.view(shared, -1) == 0).all(1)
    gone = key.nonzero().flatten().tolist()
    # What is left computes what the dense model does without these heads, and all else is as it was.
    after = model(inputs)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(before[name])
    assert torch.allclose(after, model(inputs, gone))
    assert len(gone) == int(shared * Fraction(str(target))) == pruner.pools[0][1].pruned


def test_pruned_query_heads_are_those_of_the_key_value_head() -> None:
    model = GroupedAttention(4, 2, 8)
    with torch.no_grad():
        model.k.weight[8:] *= 1e-3
        model.q.weight[16:] *= 1e-3
        model.v.weight[8:] *= 1e-3
    pruner = head_pruner(model, 4, 0.5)
    pruner.project(0)
    for weight, start in ((model.q.weight, 16), (model.k.weight, 8), (model.v.weight, 8), (model.o.weight.t(), 16)):
        assert bool((weight[start:] == 0).all())
        assert bool((weight[:start] != 0).all())
    assert holds_pattern(pruner, dict(model.named_parameters())) == (True, 1)


def test_one_key_value_head_for_all_cannot_be_pruned_by_half() -> None:
    pruner = head_pruner(GroupedAttention(4, 1, 2), 4, 0.5)
    assert pruner.structures[0].units == 1
    pruner.project(0)
    assert pruner.zeros == 0


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ({"k": 12}, 4),  # three key heads, two value heads
        ({"v": 16}, 4),
        ({"k": 12, "v": 12}, 4),  # three for four
        ({"k": 6, "v": 6}, 4),  # one and a half
        ({"k": 2, "v": 2}, 4),  # half of one
        ({"k": 32, "v": 32}, 4),  # more than query
        ({}, 3),
        ({"o": 24}, 4),
    ],
)
def test_shapes_that_are_not_of_so_many_heads_are_refused(rows: dict[str, int], count: int) -> None:
    model = GroupedAttention(4, 2, 4)
    for name, size in rows.items():
        model.add_module(name, nn.Linear(size, HIDDEN) if name == "o" else nn.Linear(HIDDEN, size))
    with pytest.raises(SparsityError, match=r"^(k|q|o)\.weight: .*heads"):
        head_pruner(model, count, 0.5)


# Several attentions in one block ------------------------------------------------------------------


def layer(*attentions: str, missing: Sequence[str] = ()) -> nn.ModuleDict:
    parts = nn.ModuleDict()
    for name in attentions:
        parts[name] = GroupedAttention(4, 2 if name == "cross" else 4, 3)
        for role in missing:
            if role.startswith(f"{name}."):
                delattr(parts[name], role.rpartition(".")[2])
    return parts


class Nested(nn.Module):
    """BERT's way: query, key and value in one module, the output projection in its neighbour."""

    def __init__(self) -> None:
        super().__init__()
        inner = GroupedAttention(4, 4, 3)
        self.inner = nn.ModuleDict({name: getattr(inner, name) for name in "qkv"})
        self.outer = nn.ModuleDict({"o": inner.o})


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_self_and_cross_attention_are_two_structures(nested: bool, order: int) -> None:
    names = ["own", "cross"][::order]
    block = nn.ModuleDict({name: Nested() for name in names}) if nested else layer(*names)
    model = nn.ModuleDict({"decoder": nn.ModuleList([block, layer("own")])})
    pruner = head_pruner(model, 4, 0.5)
    assert {structure.name for structure in pruner.structures} == {"decoder.0.own", "decoder.0.cross", "decoder.1"}
    assert len(pruner.weights) == len({weight.name for weight in pruner.weights}) == 12
    for structure in pruner.structures:
        assert len({".".join(m.weight.layer.split(".")[:3]) for m in structure.members}) == 1
    pruner.project(0)
    assert holds_pattern(pruner, dict(model.named_parameters()))[0]


@given(missing=st.sets(st.sampled_from([f"{a}.{r}" for a in ("own", "cross") for r in "qkvo"]), min_size=1, max_size=6))
@examples(60)
def test_an_attention_that_lacks_a_weight_is_refused(missing: set[str]) -> None:
    whole = [a for a in ("own", "cross") if not any(m.startswith(f"{a}.") for m in missing)]
    gone = [a for a in ("own", "cross") if all(f"{a}.{r}" in missing for r in "qkvo")]
    assume(len(whole) + len(gone) < 2)
    # One weight of each role is left: names alone cannot tell these from one attention.
    assume(len({name[-1] for name in missing}) < 4 or len(missing) > 4)
    model = nn.ModuleDict({"decoder": nn.ModuleList([layer("own", "cross", missing=sorted(missing))])})
    with pytest.raises(SparsityError, match=r"heads: |roles=\w+: matches no layer"):
        head_pruner(model, 4, 0.5)


def test_a_second_weight_of_one_role_is_refused() -> None:
    block = layer("own")
    block["own"].add_module("again", nn.ModuleDict({"k": nn.Linear(HIDDEN, 12)}))
    with pytest.raises(SparsityError, match=r"heads: .*own\.(again\.)?k"):
        head_pruner(nn.ModuleDict({"decoder": nn.ModuleList([block])}), 4, 0.5)
    flat = nn.ModuleDict({f"{name}{i}": nn.Linear(12, 12) for name in "qkvo" for i in (1, 2)})
    family = Family("flat", {role: [rf".*\.{name}\d"] for role, name in zip(ROLES, "qkvo", strict=True)}, heads=4)
    with pytest.raises(SparsityError, match="both are"):
        pruner_of(nn.ModuleList([flat]), heads(0.5), Magnitude(), OneShot(), family=family)


@pytest.mark.parametrize("attribute", ["num_heads", "num_attention_heads", "n_heads"])
def test_an_attention_that_says_it_has_other_heads_is_refused(attribute: str) -> None:
    model = nn.ModuleList([layer("own"), layer("own")])
    setattr(model[1]["own"], attribute, 2)  # type: ignore[index]
    with pytest.raises(SparsityError, match=r"1\.own\.q is of an attention with 2 heads, and the family has 4"):
        head_pruner(model, 4, 0.5)
    setattr(model[1]["own"], attribute, 4)  # type: ignore[index]
    assert len(head_pruner(model, 4, 0.5).structures) == 2


def test_some_attentions_may_be_chosen() -> None:
    model = nn.ModuleDict({"decoder": nn.ModuleList([layer("own", "cross")])})
    (plan,) = heads(0.5, layers=Layers(roles=ROLES, exclude=[r"\.cross\."])).parts.values()
    (pruner,) = attach(model, {"heads": plan.completed(Magnitude(), OneShot())}, Family("f", FAMILY, heads=4), 1)
    assert [structure.name for structure in pruner.structures] == ["decoder.0"]
    assert [structure.units for structure in pruner.structures] == [4]
