"""Channels of feed-forward networks: rows of the first matrix with columns of the second, of real models and others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from family_helpers import model_of
from torch import Tensor, nn

from hydraprune.models.families import family_of
from hydraprune.sparsity import (
    Family,
    Layers,
    Magnitude,
    OneShot,
    Plans,
    Pruner,
    RetrainFree,
    SparseGpt,
    SparsityError,
    attach,
    ffn_channels,
    heads,
    holds_pattern,
    slim,
)

KINDS = ("bert", "roberta", "distilbert", "electra", "gpt2")
NAMES = {
    "distilbert": ("ffn.lin1", "ffn.lin2"),
    "gpt2": ("mlp.c_fc", "mlp.c_proj"),
}


def pruner_of(model: nn.Module, family: Family, plans: Plans, **more: Any) -> Pruner:
    plan = plans.parts["ffn_channels"].completed(more.pop("criterion", Magnitude()), OneShot(), **more)
    (pruner,) = attach(model, {"ffn_channels": plan}, family, 1)
    return pruner


def matrices(model: nn.Module, kind: str) -> list[tuple[Tensor, Tensor]]:
    """[channels, inputs] and [outputs, channels] of each layer."""
    first, second = NAMES.get(kind, ("intermediate.dense", "output.dense"))
    weights = {name: p.detach() for name, p in model.named_parameters() if ".attention." not in name and p.ndim == 2}
    found = [
        [weight.T if kind == "gpt2" else weight for name, weight in weights.items() if name.endswith(f"{end}.weight")]
        for end in (first, second)
    ]
    return list(zip(*found, strict=True))


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_cheapest_channels_go_whole(kind: str, scope: Any) -> None:
    torch.manual_seed(0)
    model = model_of(kind)
    layers = [(first.clone(), second.clone()) for first, second in matrices(model, kind)]
    worth = torch.stack([first.abs().mean(1) + second.abs().mean(0) for first, second in layers])
    pruner = pruner_of(model, family_of(kind) or Family(kind), ffn_channels(0.25, scope=scope))
    pruner.project(0)
    expected = torch.zeros_like(worth, dtype=torch.bool)
    if scope == "global":
        expected.view(-1)[worth.view(-1).argsort()[: worth.numel() // 4]] = True
    else:
        expected.scatter_(1, worth.argsort(1)[:, : worth.shape[1] // 4], True)
    assert len(layers) == 2
    for (first, second), gone, (old_first, old_second) in zip(matrices(model, kind), expected, layers, strict=True):
        assert torch.equal(first, old_first * ~gone.unsqueeze(1))
        assert torch.equal(second, old_second * ~gone)
    assert holds_pattern(pruner, dict(model.named_parameters())) == (True, worth.numel() // 4)
    assert sum(units.pruned for _, units in pruner.pools) == worth.numel() // 4


def test_a_pruned_channel_has_no_effect_whatever_its_bias() -> None:
    torch.manual_seed(0)
    model = model_of("bert")
    pruner_of(model, family_of("bert") or Family("bert"), ffn_channels(0.5)).project(0)
    tokens = torch.randint(5, 50, (4, 12))
    before = model(tokens).logits
    with torch.no_grad():
        for layer in model.bert.encoder.layer:  # type: ignore[union-attr]
            dense = layer.intermediate.dense  # type: ignore[union-attr]
            dense.bias[(dense.weight == 0).all(1)] = 7.0
    assert torch.equal(model(tokens).logits, before)


def test_adjacent_channels_go_together() -> None:
    torch.manual_seed(0)
    model = model_of("bert")
    pruner_of(model, family_of("bert") or Family("bert"), ffn_channels(0.5, size=4)).project(0)
    for first, second in matrices(model, "bert"):
        gone = (first == 0).all(1).reshape(-1, 4)
        assert torch.equal(gone.any(1), gone.all(1))
        assert torch.equal((second == 0).all(0), gone.flatten())
        assert gone.any()
    with pytest.raises(SparsityError, match=r"does not fit .* 5 does not divide its 64 rows"):
        pruner_of(model_of("bert"), family_of("bert") or Family("bert"), ffn_channels(0.5, size=5))


class Gated(nn.Module):
    """Two networks, each with two first matrices."""

    def __init__(self, down: int = 12) -> None:
        super().__init__()
        parts = {"gate": nn.Linear(8, 12), "up": nn.Linear(8, 12), "down": nn.Linear(down, 8)}
        self.layer = nn.ModuleList([nn.ModuleDict(parts)])


GATED = Family("gated", {"ffn_in": [r".*\.gate", r".*\.up"], "ffn_out": [r".*\.down"]})


def test_a_channel_of_a_gated_network_is_a_row_of_both_first_matrices() -> None:
    model = Gated()
    pruner_of(model, GATED, ffn_channels(0.5)).project(0)
    network: Any = model.layer[0]
    gone = [
        (network["gate"].weight == 0).all(1),
        (network["up"].weight == 0).all(1),
        (network["down"].weight == 0).all(0),
    ]
    assert all(torch.equal(one, gone[0]) for one in gone)
    assert int(gone[0].sum()) == 6


REFUSED = {
    "another role": (Layers(include=["query"]), "is no ffn_in or ffn_out of a bert model"),
    "no second": (Layers(roles=["ffn_in"]), "has no ffn_out among the chosen layers"),
    "no first": (Layers(roles=["ffn_out"]), "has no ffn_in among the chosen layers"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_layers_that_are_no_networks_are_refused(what: str) -> None:
    layers, words = REFUSED[what]
    with pytest.raises(SparsityError, match=words):
        pruner_of(model_of("bert"), family_of("bert") or Family("bert"), ffn_channels(0.5, layers=layers))


def test_networks_whose_matrices_do_not_meet_are_refused() -> None:
    with pytest.raises(SparsityError, match=r"has 12 rows, and layer\.0\.down 10 columns"):
        pruner_of(Gated(down=10), GATED, ffn_channels(0.5))
    two = Family("two", {"ffn_in": [r".*\.gate"], "ffn_out": [r".*\.(up|down)"]})
    with pytest.raises(SparsityError, match=r"both are ffn_out of layer\.0"):
        pruner_of(Gated(), two, ffn_channels(0.5))


def test_zeros_of_the_start_are_kept_and_counted() -> None:
    torch.manual_seed(0)
    model = model_of("bert")
    family = family_of("bert") or Family("bert")
    pruner_of(model, family, ffn_channels(0.25)).project(0)
    plans = ffn_channels(0.5)
    pruner = pruner_of(model, family, plans)
    before = [first == 0 for first, _ in matrices(model, "bert")]
    pruner.project(0)
    assert sum(units.pruned for _, units in pruner.pools) == 64
    after = [first == 0 for first, _ in matrices(model, "bert")]
    assert all(bool((new | ~old).all()) for old, new in zip(before, after, strict=True))


def test_retrain_free_takes_them_and_sparse_gpt_refuses() -> None:
    model, family = model_of("bert"), family_of("bert") or Family("bert")
    with pytest.raises(SparsityError, match="leaves no column of a row to compensate"):
        pruner_of(model, family, ffn_channels(0.5), criterion=SparseGpt())
    plan = ffn_channels(0.5).parts["ffn_channels"].completed(RetrainFree(), OneShot())
    (pruner,) = attach(model, {"ffn_channels": plan}, family, 0, calibration=lambda _: iter(()))
    assert [structure.members[-1].pattern.name for structure in pruner.structures] == ["channelx1"] * 2


def test_slim_is_mixed_under_another_name() -> None:
    plans = slim({"heads": heads(0.5), "ffn_channels": ffn_channels(0.5)})
    assert plans.name == "slim"
    assert [plan.pattern.name for plan in plans.parts.values()] == ["heads", "ffn_channels"]
    assert plans.target_sparsity == 0.5
