"""Head pruning: whole heads of query, key, value and output projection, for three families of real models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from sparsity_helpers import PLAIN
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hydraprune.models.families import family_of
from hydraprune.sparsity import (
    Criterion,
    Exp,
    GroupLasso,
    Layers,
    Magnitude,
    OneShot,
    Plans,
    Progressive,
    Pruner,
    SnipMomentum,
    SparsityError,
    attach,
    holds_pattern,
)
from hydraprune.sparsity.plans import heads

HEADS, WIDTH, HIDDEN, LAYERS = 4, 8, 32, 3
SIZES = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 48, "hidden_size": HIDDEN}


def model_of(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "bert":
        return BertForSequenceClassification(BertConfig(vocab_size=50, **SIZES)).eval()
    if kind == "roberta":
        return RobertaForSequenceClassification(RobertaConfig(vocab_size=50, **SIZES)).eval()
    config = DistilBertConfig(vocab_size=50, n_layers=LAYERS, n_heads=HEADS, dim=HIDDEN, hidden_dim=48)
    return DistilBertForSequenceClassification(config).eval()


KINDS = ["bert", "distilbert", "roberta"]


def head_pruner(
    model: nn.Module, kind: str, plans: Plans, criterion: Criterion | None = None, steps: int = 1, **plan: Any
) -> Pruner:
    family = replace(family_of(kind), heads=HEADS)
    complete = plans.parts["heads"].completed(criterion or Magnitude(), plan.pop("schedule", OneShot()), **plan)
    (pruner,) = attach(model, {"heads": complete}, family, steps)
    return pruner


def attention(model: nn.Module, kind: str, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    names = (
        ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin")
        if kind == "distilbert"
        else ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    )
    stem = f"distilbert.transformer.layer.{layer}" if kind == "distilbert" else f"{kind}.encoder.layer.{layer}"
    query, key, value, out = (model.get_submodule(f"{stem}.{name}").weight for name in names)
    return query, key, value, out


def scores(model: nn.Module, kind: str) -> Tensor:
    """Mean |w| of each head, computed the plain way: [layers, heads]."""
    result = torch.zeros(LAYERS, HEADS)
    for layer in range(LAYERS):
        query, key, value, out = (weight.detach() for weight in attention(model, kind, layer))
        for head in range(HEADS):
            rows = slice(head * WIDTH, (head + 1) * WIDTH)
            parts = [query[rows], key[rows], value[rows], out[:, rows]]
            result[layer, head] = sum(float(part.abs().mean()) for part in parts) / 4
    return result


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_cheapest_heads_go_whole(kind: str, scope: Any) -> None:
    model = model_of(kind)
    worth = scores(model, kind)
    pruner = head_pruner(model, kind, heads(0.5, scope))
    pruner.project(0)
    expected = torch.zeros(LAYERS, HEADS, dtype=torch.bool)
    if scope == "global":
        expected.view(-1)[worth.view(-1).argsort()[:6]] = True
    else:
        expected.scatter_(1, worth.argsort(1)[:, :2], True)
    for layer in range(LAYERS):
        query, key, value, out = attention(model, kind, layer)
        for head in range(HEADS):
            rows = slice(head * WIDTH, (head + 1) * WIDTH)
            for part in (query[rows], key[rows], value[rows], out[:, rows]):
                assert bool((part == 0).all()) == bool(expected[layer, head])
                assert bool((part == 0).any()) == bool(expected[layer, head])
    assert sum(units.pruned for _, units in pruner.pools) == 6
    assert pruner.zeros == 6 * 4 * WIDTH * HIDDEN
    assert pruner.total == LAYERS * 4 * HIDDEN * HIDDEN
    assert holds_pattern(pruner, dict(model.named_parameters())) == (True, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pruned_head_has_no_effect_whatever_its_biases(kind: str) -> None:
    model = model_of(kind)
    pruner = head_pruner(model, kind, heads(0.5, "local"))
    pruner.project(0)
    tokens = torch.randint(5, 50, (4, 12))
    before = model(tokens).logits
    changed = 0
    with torch.no_grad():
        for structure in pruner.structures:
            for member in structure.members[:3]:
                bias = dict(model.named_parameters())[member.weight.name.replace("weight", "bias")]
                gone = (member.weight.parameter == 0).all(1)
                bias[gone] = 7.0
                changed += int(gone.sum())
    assert changed == LAYERS * 3 * 2 * WIDTH
    assert torch.equal(model(tokens).logits, before)


def test_heads_are_pruned_while_training_and_resume() -> None:
    def trained(cut: int | None) -> nn.Module:
        model = model_of("bert")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        schedule = Exp(warmup=1, cooldown=2, frequency=2)
        made = {"criterion": SnipMomentum(), "steps": 9, "schedule": schedule}
        pruner = head_pruner(model, "bert", heads(0.5, cap=0.75), **made)
        pruner.project(0, optimizer)
        for step in range(9):
            if step == cut:
                state = pruner.state_dict()
                pruner = head_pruner(model, "bert", heads(0.5, cap=0.75), **made)
                pruner.load_state_dict(state)
            tokens = torch.randint(5, 50, (4, 12), generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(tokens, labels=torch.arange(4) % 2).loss.backward()
            pruner.observe(step)
            optimizer.step()
            pruner.project(step + 1, optimizer)
        assert holds_pattern(pruner, dict(model.named_parameters())) == (True, 6)
        # The published tool has no cap here, and may empty a layer.
        assert all(int(s.empty(dict(model.named_parameters())).sum()) <= 3 for s in pruner.structures)
        return model

    whole, halves = trained(None), trained(5)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


def test_heads_work_with_progressive_pruning_and_group_lasso() -> None:
    model = model_of("bert")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = Exp(warmup=4, frequency=4)
    pruner = head_pruner(
        model, "bert", heads(0.5), steps=8, schedule=schedule, transition=Progressive(4), regularizer=GroupLasso(1e-4)
    )
    zeros = []
    for step in range(9):
        pruner.project(step, optimizer)
        zeros.append(pruner.zeros)
    assert [step for step in range(1, 9) if zeros[step] > zeros[step - 1]] == [5, 6, 7, 8]
    assert zeros[-1] == 6 * 4 * WIDTH * HIDDEN


def test_weights_that_form_no_heads_are_refused() -> None:
    model, family = model_of("bert"), replace(family_of("bert"), heads=HEADS)
    (plan,) = heads(0.5).parts.values()
    plan = plan.completed(Magnitude(), OneShot())

    def refused(match: str, plan: Any = plan, family: Any = family) -> None:
        with pytest.raises(SparsityError, match=match):
            attach(model, {"heads": plan}, family, 1)

    refused("how many heads", family=family_of("bert"))
    refused(r"5 heads do not divide its 32 channels", family=replace(family, heads=5))
    refused(r"layer\.1 has no key", replace(plan, layers=Layers(roles=plan.layers.roles, exclude=r"layer\.1.*key")))
    refused(r"layer\.0\.intermediate\.dense: is no query", replace(plan, layers=Layers()))
    with pytest.raises(SparsityError, match="reduce=median"):
        heads(0.5, reduce="median")  # type: ignore[arg-type]
    assert PLAIN.heads is None
