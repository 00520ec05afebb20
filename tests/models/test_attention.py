"""Attention functions for training: the same numbers as PyTorch's own, and no trace in saved models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_helpers import KINDS, small_model
from torch import Tensor, nn
from transformers import AlbertConfig, AlbertForSequenceClassification, AutoModelForSequenceClassification

from hydraprune.kernels.dropout import use_fast_dropout
from hydraprune.models.attention import choose_attention

PLAIN, SDPA = "hydraprune_plain", "hydraprune_sdpa"
CPU, CUDA = torch.device("cpu"), torch.device("cuda")

# Without GPT-2, which is causal and whose attention dropout is left to SDPA.
ENCODERS = [kind for kind in KINDS if kind != "gpt2"]


def network(kind: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    # Weights so large that attention is far from uniform.
    padding = {"pad_token_id": 1} if kind == "gpt2" else {}
    return small_model(kind, initializer_range=0.3, **padding, **more)


def inputs(padded: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 30, (4, 9), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        for row, length in enumerate((9, 1, 5, 7)):
            ids[row, length:], mask[row, length:] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def outputs(model: nn.Module, how: str, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(logits, the last hidden states of real tokens)."""
    model.set_attn_implementation(how)  # type: ignore[operator]
    with torch.no_grad():
        found = model(**given, output_hidden_states=True)
    return found.logits, found.hidden_states[-1][given["attention_mask"].bool()]


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "whole"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_all_attention_functions_agree(kind: str, padded: bool) -> None:
    model, given = network(kind).eval(), inputs(padded)
    expected = outputs(model, "eager", given)
    for how in ("sdpa", PLAIN, SDPA):
        for ours, theirs in zip(outputs(model, how, given), expected, strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-5), how


@pytest.mark.parametrize("kind", ENCODERS)
def test_their_gradients_agree(kind: str) -> None:
    gradients = []
    for how in ("eager", PLAIN, SDPA):
        model = network(kind).eval()
        model.set_attn_implementation(how)  # type: ignore[operator]
        model(**inputs(True)).logits.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    largest = max(float(gradient.abs().max()) for gradient in gradients[0])
    for ours in gradients[1:]:
        assert len(ours) == len(gradients[0])
        for one, other in zip(ours, gradients[0], strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * largest)


def test_an_example_does_not_depend_on_its_batch() -> None:
    model, given = network("bert").eval(), inputs(True)
    for how in (PLAIN, SDPA):
        together, _ = outputs(model, how, given)
        for row, length in enumerate((9, 1, 5, 7)):
            alone, _ = outputs(model, how, {key: values[row : row + 1, :length] for key, values in given.items()})
            assert torch.allclose(alone[0], together[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", [PLAIN, SDPA])
def test_a_causal_model_stays_causal(how: str) -> None:
    model, given = network("gpt2").eval(), inputs(True)
    expected = outputs(model, "eager", given)
    for ours, theirs in zip(outputs(model, how, given), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_host_never_waits_for_an_accelerator(kind: str) -> None:
    # Meta tensors have no values, so reading one back raises an error.
    model = network(kind)
    choose_attention(model, CUDA)
    model.to("meta")
    given = {key: values.to("meta") for key, values in inputs(True).items()}
    logits = model.train()(**given).logits
    logits.sum().backward()
    assert logits.shape == (4, 2)
    assert any(parameter.grad is not None for parameter in model.parameters())


# Dropout -----------------------------------------------------------------------------------------


def test_attention_dropout_acts_in_training_mode_only() -> None:
    model = network("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
    choose_attention(model, CPU)
    given = inputs(True)
    one, other = (model.train()(**given).logits for _ in range(2))
    assert not torch.allclose(one, other)
    one, other = (model.eval()(**given).logits for _ in range(2))
    assert torch.equal(one, other)


def test_attention_dropout_keeps_the_expectation() -> None:
    model = network("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.1)
    attention = model.get_submodule("bert.encoder.layer.0.attention.self")
    choose_attention(model, CPU)
    hidden = torch.randn(1, 6, 32)
    torch.manual_seed(0)
    with torch.no_grad():
        expected = attention.eval()(hidden)[0]
        drawn = attention.train()(hidden.expand(4000, -1, -1))[0]
    assert bool(((drawn.mean(0) - expected[0]).abs() <= 5.5 * drawn.std(0) / 4000**0.5 + 1e-6).all())


# Which one is chosen ------------------------------------------------------------------------------


def chosen(model: nn.Module, device: torch.device) -> str:
    choose_attention(model, device)
    return str(model.config._attn_implementation)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_known_family_gets_the_fastest_attention_of_its_device(kind: str) -> None:
    assert chosen(network(kind), CPU) == PLAIN
    assert chosen(network(kind), CUDA) == SDPA
    assert chosen(network(kind), torch.device("mps")) == "sdpa"


def test_without_dropout_a_cpu_uses_sdpa() -> None:
    model = network("bert", attention_probs_dropout_prob=0.0)
    assert chosen(model, CPU) == "sdpa"
    assert chosen(model, CUDA) == SDPA


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_an_unknown_family_keeps_its_own_attention(device: torch.device) -> None:
    config = AlbertConfig(
        vocab_size=30, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, attention_probs_dropout_prob=0.1,
    )  # fmt: skip
    model = AlbertForSequenceClassification(config)
    before = model.config._attn_implementation
    assert chosen(model, device) == before
    assert "hydraprune" not in before


# What is saved ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_saved_model_does_not_mention_the_attention_function(kind: str, device: torch.device, tmp_path: Path) -> None:
    model = network(kind)
    network(kind).save_pretrained(tmp_path / "plain")
    choose_attention(model, device)
    use_fast_dropout(model)
    model.save_pretrained(tmp_path / "ours")  # type: ignore[operator]
    saved, plain = ((tmp_path / name / "config.json").read_text() for name in ("ours", "plain"))
    assert saved == plain
    assert "hydraprune" not in saved
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    assert loaded.config._attn_implementation == "sdpa"
    given = inputs(True)
    expected = model.eval()(**given).logits
    assert torch.allclose(loaded(**given).logits, expected, rtol=0, atol=1e-5)
