"""Layers computed over live blocks against the same layers of transformers: losses, gradients, random numbers."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from family_helpers import model_of
from live_layer_helpers import (
    KINDS,
    LENGTHS,
    Live,
    assert_equal_passes,
    batch,
    live,
    masks_by_name,
    run,
    trainable,
    with_compiled_dropout,
)
from torch import Tensor, nn
from trained_layer_helpers import training_kernels
from transformers import AutoModelForSequenceClassification

from hydraprune.models.encoder_layers import encoder_layers
from hydraprune.models.live_layers import LiveLayers, live_misfit


def compare(one: Live, inputs: dict[str, Tensor], tolerance: float = 2e-5, **more: Any) -> None:
    """The kernels compute all layers, and as the layers do; with `use(None)` the layers compute again, bit for bit."""
    wanted = run(one.model, inputs, **more)
    one.use()
    found = run(one.model, inputs, **more)
    assert one.calls[0] == len(encoder_layers(one.model.base_model))
    assert_equal_passes(found, wanted, masks_by_name(one), tolerance)
    one.layers.use(None)
    again = run(one.model, inputs, **more)
    assert torch.equal(again.outputs.logits, wanted.outputs.logits)
    assert all(torch.equal(again.gradients[name], gradient) for name, gradient in wanted.gradients.items())


def compare_own(one: Live, inputs: dict[str, Tensor], **more: Any) -> None:
    """The layers compute themselves while the kernels are in use, bit for bit."""
    wanted = run(one.model, inputs, **more)
    one.use()
    found = run(one.model, inputs, **more)
    assert one.calls[0] == 0
    assert torch.equal(found.outputs.logits, wanted.outputs.logits)
    assert all(torch.equal(found.gradients[name], gradient) for name, gradient in wanted.gradients.items())


@pytest.mark.parametrize("kind", KINDS)
def test_every_family(kind: str) -> None:
    model = trainable(kind)
    assert live_misfit(model) is None
    with_compiled_dropout(lambda: compare(live(model), batch()))


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "gelu_python", "relu"])
def test_activations(activation: str) -> None:
    compare(live(trainable("bert", hidden_act=activation)), batch())


@pytest.mark.parametrize("lengths", [(20,), (20, 20), (1, 1), (64, 1), (100, 65)])
def test_lengths(lengths: tuple[int, ...]) -> None:
    compare(live(trainable("bert")), batch(lengths))


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.0, 0.3), (0.3, 0.0)])
def test_some_dropouts_alone(rates: tuple[float, float]) -> None:
    """Without dropout of attention weights attention is PyTorch's, whose masks are others."""
    hidden, attention = rates
    for kind, names in (
        ("bert", ("hidden_dropout_prob", "attention_probs_dropout_prob")),
        ("distilbert", ("dropout", "attention_dropout")),
    ):
        compare(live(trainable(kind, **dict(zip(names, (hidden, attention), strict=True)))), batch())


def test_without_a_mask() -> None:
    inputs = batch((30, 30))
    del inputs["attention_mask"]
    compare(live(trainable("bert")), inputs)


def test_embeddings_in_place_of_ids() -> None:
    model = trainable("bert")
    inputs = batch()
    inputs["inputs_embeds"] = torch.randn(*inputs.pop("input_ids").shape, 32)
    compare(live(model), inputs)


def test_hidden_states() -> None:
    one, inputs = live(trainable("bert")), batch()
    wanted = run(one.model, inputs, output_hidden_states=True).outputs.hidden_states
    one.use()
    found = run(one.model, inputs, output_hidden_states=True).outputs.hidden_states
    assert one.calls[0] == len(found) - 1 == 2
    mask = inputs["attention_mask"].bool()
    for one_layer, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one_layer[mask], other[mask], rtol=1e-4, atol=1e-5)


def test_evaluation() -> None:
    one, inputs = live(trainable("bert").eval()), batch()
    compare(one, inputs)
    with torch.no_grad():
        wanted = one.model(**inputs).logits
        one.use()
        found = one.model(**inputs).logits
    assert found.grad_fn is None
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(one.model(**inputs).logits, wanted, rtol=1e-4, atol=1e-5)


def test_autocast_to_bfloat16() -> None:
    """The kernels compute in single precision, and so nearer than the layers."""
    one, inputs = live(trainable("bert")), batch()
    exact = run(one.model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        compare(one, inputs, 0.05)
        one.use()
        found = run(one.model, inputs)
    assert all(gradient.dtype == torch.float32 for gradient in found.gradients.values())
    assert_equal_passes(found, exact, masks_by_name(one), 0.05)


def test_frozen_embeddings_and_layers() -> None:
    model = trainable("bert")
    for parameter in (*model.bert.embeddings.parameters(), *model.bert.encoder.layer[0].parameters()):
        parameter.requires_grad_(False)
    one, inputs = live(model), batch()
    compare(one, inputs)
    one.use()
    assert not any("embeddings" in name or "layer.0." in name for name in run(model, inputs).gradients)


def test_pruned_weights_alone_have_masks() -> None:
    """A weight without one is live as a whole; the share is that of all weights of the layers."""
    one, inputs = live(trainable("bert"), 1.0), batch()
    wanted = run(one.model, inputs)
    weights = one.layers.weights
    mask = torch.zeros(weights[0].shape, dtype=torch.bool)
    mask[:8] = True
    with torch.no_grad():
        weights[0].mul_(mask)
    wanted = run(one.model, inputs)
    total = sum(weight.numel() for weight in weights)
    masks = {id(weights[0]): mask}
    assert one.layers.share(masks) == 1 - (~mask).sum() / total
    one.layers.use(masks)
    found = run(one.model, inputs)
    assert_equal_passes(found, wanted, {next(n for n, p in one.model.named_parameters() if p is weights[0]): mask})


def test_heads_and_channels_that_were_removed() -> None:
    model = trainable("bert")
    first, second = encoder_layers(model.base_model)
    first.keep_heads([0, 2])
    second.keep_heads([3])
    first.keep_channels(range(12))
    assert live_misfit(model) is None
    compare(live(model), batch())


# Calls that the layers compute themselves ---------------------------------------------------------


def own_masks() -> dict[str, Tensor]:
    padding = batch()["attention_mask"]
    holes, left, none = padding.clone(), padding.flip(1), padding.clone()
    holes[3, ::3] = 0
    holes[0, 0] = 0
    none[2] = 0
    return {"holes": holes, "left": left, "nothing": none}


@pytest.mark.parametrize("name", ["holes", "left"])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_masks_of_another_form(kind: str, name: str) -> None:
    compare_own(live(trainable(kind)), {**batch(), "attention_mask": own_masks()[name]})


def test_a_text_of_which_nothing_is_kept() -> None:
    compare_own(live(trainable("bert")), {**batch(), "attention_mask": own_masks()["nothing"]})


@pytest.mark.parametrize("attention", [0.0, 0.1])
def test_masks_of_four_dimensions(attention: float) -> None:
    """Of padded texts they are read; with another mask for some queries, or numbers that are added, they are not."""
    padded = batch()["attention_mask"][:, None, None].bool()
    by_query, by_head = padded.expand(-1, 1, 70, -1).clone(), padded.expand(-1, 4, 70, -1).clone()
    by_query[0, 0, 5, 3] = False
    by_head[0, 2, :, 3] = False
    for mask in (by_query, by_head, torch.randn(4, 1, 70, 70)):
        used = mask if mask.dtype != torch.bool or not attention else torch.zeros(mask.shape).masked_fill(~mask, -1e9)
        compare_own(
            live(trainable("bert", attention_probs_dropout_prob=attention)), {**batch(), "attention_mask": used}
        )
    mask = padded.expand(-1, 1, 70, -1).clone()
    used = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min) if attention else mask
    compare(live(trainable("bert", attention_probs_dropout_prob=attention)), {**batch(), "attention_mask": used})


@pytest.mark.parametrize("kind", KINDS)
def test_attention_weights(kind: str) -> None:
    one, inputs = live(trainable(kind)), batch()
    compare_own(one, inputs, output_attentions=True)
    found = run(one.model, inputs, output_attentions=True).outputs.attentions
    assert [weights.shape for weights in found] == [(4, 4, 70, 70)] * 2
    one.model.set_attn_implementation("eager")  # transformers refuses the next line with others
    one.model.config.output_attentions = True
    assert len(run(one.model, inputs).outputs.attentions) == 2
    assert one.calls[0] == 0
    one.model.config.output_attentions = False
    run(one.model, inputs)
    assert one.calls[0] == 2


def test_hooks_inside_of_a_layer_see_its_modules() -> None:
    one, inputs = live(trainable("bert")), batch()
    wanted = run(one.model, inputs)
    inside = one.model.bert.encoder.layer[1].output.dense
    seen: list[Any] = []
    registered = [
        lambda: inside.register_forward_hook(lambda *_: seen.append(1)),
        lambda: inside.register_forward_pre_hook(lambda *_: seen.append(1)),
        lambda: inside.register_full_backward_hook(lambda *_: seen.append(1)),
        lambda: inside.register_full_backward_pre_hook(lambda *_: seen.append(1)),
    ]
    one.use()
    for count, register in enumerate(registered, 1):
        handle = register()
        found = run(one.model, inputs)
        handle.remove()
        assert len(seen) == one.calls[0] == count  # the other layer is computed by the kernels
        assert_equal_passes(found, wanted, {n: m for n, m in masks_by_name(one).items() if "layer.0." in n})


def test_hooks_of_layers_and_parameters_are_called() -> None:
    one, inputs = live(trainable("bert")), batch()
    one.use()
    layer, seen = one.model.bert.encoder.layer[0], []
    layer.register_forward_hook(lambda *_: seen.append("forward"))
    layer.register_full_backward_hook(lambda *_: seen.append("backward"))
    layer.output.dense.weight.register_hook(lambda gradient: seen.append("weight"))
    layer.output.dense.weight.register_post_accumulate_grad_hook(lambda weight: seen.append("grad"))
    run(one.model, inputs)
    assert sorted(seen) == ["backward", "forward", "grad", "weight"]
    assert one.calls[0] == 2


# Models in use ------------------------------------------------------------------------------------


def test_a_copy_of_a_model_in_use() -> None:
    model = trainable("bert")
    made = LiveLayers(model.base_model, training_kernels())
    made.use({})
    inputs = batch()
    wanted = run(model, inputs)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    changed = run(other, inputs)
    assert not torch.equal(changed.outputs.logits, wanted.outputs.logits)
    assert changed.gradients
    assert torch.equal(run(model, inputs).outputs.logits, wanted.outputs.logits)
    made.use(None)  # of the model, and not of its copy
    assert not torch.equal(run(model, inputs).outputs.logits, wanted.outputs.logits)
    assert torch.equal(run(other, inputs).outputs.logits, changed.outputs.logits)


def test_saving_a_model_in_use(tmp_path: Path) -> None:
    one, inputs = live(trainable("bert")), batch()
    one.use()
    one.model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == one.model.state_dict().keys()
    torch.testing.assert_close(loaded.eval()(**inputs).logits, one.model.eval()(**inputs).logits, rtol=1e-4, atol=1e-5)


def test_a_model_that_is_dropped_is_freed() -> None:
    one = live(trainable("bert"))
    one.use()
    run(one.model, batch())
    gone = weakref.ref(one.model)
    del one
    gc.collect()
    assert gone() is None


# Models whose layers the kernels do not compute ---------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "more", "why"),
    [
        ("mpnet", {}, "model_type mpnet has no kernels"),
        ("gpt2", {}, "model_type gpt2 has no kernels"),
        ("bert", {"hidden_act": "silu"}, "activation"),
        ("bert", {"chunk_size_feed_forward": 2}, "chunks"),
        ("bert", {"is_decoder": True}, "decoder"),
        ("bert", {"hidden_size": 24}, "sizes that are no multiple of 4"),
        ("bert", {"intermediate_size": 66}, "outputs that are no multiple of 4"),
        ("bert", {"hidden_dropout_prob": 1.0}, "drops everything"),
    ],
)
def test_models_without_kernels(kind: str, more: dict[str, Any], why: str) -> None:
    found = live_misfit(trainable(kind, **more))
    assert found is not None
    assert why in found


def test_modules_without_kernels() -> None:
    assert "PyTorch's" in str(live_misfit(model_of("bert")))
    checkpointing = trainable("bert")
    checkpointing.gradient_checkpointing_enable()
    assert "again in the backward pass" in str(live_misfit(checkpointing))
    assert "float32" in str(live_misfit(trainable("bert").double()))
    assert "float32" in str(live_misfit(trainable("bert").to("meta")))

    class Own(nn.Linear):
        pass

    for dense, why in (
        (Own(32, 64), "no bias, or outputs"),
        (nn.Linear(32, 64, bias=False), "no bias, or outputs"),
        (nn.Identity(), "not made of plain linear layers"),
    ):
        model = trainable("bert")
        model.bert.encoder.layer[1].intermediate.dense = dense
        assert why in str(live_misfit(model))
    model = trainable("bert")
    model.bert.encoder.layer[1].output.LayerNorm = nn.RMSNorm(32)
    assert "normalisations" in str(live_misfit(model))


def test_lengths_of_one_batch_are_not_those_of_the_next() -> None:
    one = live(trainable("bert"))
    for lengths in ((3, 9), (9, 3), LENGTHS, (9, 9)):
        one.layers.use(None)
        wanted = run(one.model, batch(lengths))
        one.use()
        assert_equal_passes(run(one.model, batch(lengths)), wanted, masks_by_name(one))
