"""Whole encoders of the kernels against transformers' models, compiled for each kind of processor."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_helpers import TARGETS, difference, kernels, make_sparse
from sparsity_helpers import examples
from torch import Tensor
from transformers import BertConfig, BertModel

from hydraprune.deploy.encoder_modules import encoder_weights
from hydraprune.kernels.encoders import Encoder
from hydraprune.kernels.packing import Precision

VOCABULARY = 50


def bert(heads: int = 4, size: int = 8, layers: int = 2, inner: int = 48, **more: Any) -> BertModel:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=heads * size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=512,
        **more,
    )
    model: BertModel = make_sparse(BertModel(config, add_pooling_layer=False).eval())  # type: ignore[assignment]
    return model


def encoder_of(model: BertModel, target: str = "native", precision: Precision = "fp32") -> Encoder:
    return Encoder(encoder_weights(model, precision), kernels(target))


# Precisions of the weights and of attention.
NARROW: list[tuple[Precision, Precision]] = [("bf16", "bf16"), ("fp32", "bf16")]


def narrow_encoder(model: BertModel, weights: Precision, attention: Precision) -> Encoder:
    """Skips the test where this processor has no such products."""
    if not (kernels().bf16 if weights == "bf16" else kernels().amx or attention == "fp32"):
        pytest.skip("this processor has no AVX-512 BF16, or no AMX")
    return Encoder(encoder_weights(model, weights), kernels(), attention)


def texts(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Ids and mask of texts of these lengths, padded to the longest."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return torch.randint(1, VOCABULARY, mask.shape) * mask, mask


@torch.no_grad()
def expected(model: BertModel, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
    hidden: Tensor = model(ids, attention_mask=mask, token_type_ids=types).last_hidden_state
    return hidden * mask[:, :, None]


@pytest.mark.parametrize("target", TARGETS)
@given(
    st.integers(1, 5),
    st.sampled_from([2, 4, 6, 16, 32]),
    st.integers(0, 3),
    st.integers(1, 70),
    st.sampled_from(["gelu", "relu", "gelu_new"]),
    st.lists(st.integers(1, 90), min_size=1, max_size=5),
    st.integers(0, 2**31),
)
@examples(25)
def test_any_sizes_and_lengths(
    target: str, heads: int, size: int, layers: int, inner: int, activation: str, lengths: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    model = bert(heads, size, layers, inner, hidden_act=activation)
    ids, mask = texts(lengths)
    types = torch.randint(0, 2, ids.shape)
    encoder, wanted = encoder_of(model, target), expected(model, ids, mask, types)
    assert difference(encoder(ids, types, mask), wanted) < 1e-5
    assert difference(encoder.first(ids, types, mask), wanted[:, 0]) < 1e-5


@pytest.mark.parametrize("lengths", [[1], [512], [16], [17, 64, 65, 1], [33] * 9, [500, 3, 200], [3] * 70])
@pytest.mark.parametrize("target", TARGETS)
def test_lengths_at_the_edges_of_tiles(target: str, lengths: list[int]) -> None:
    torch.manual_seed(0)
    model = bert()
    ids, mask = texts(lengths)
    encoder, wanted = encoder_of(model, target), expected(model, ids, mask)
    assert difference(encoder(ids, None, mask), wanted) < 1e-5
    assert difference(encoder.first(ids, None, mask), wanted[:, 0]) < 1e-5


@pytest.mark.parametrize("lengths", [[1], [512], [16], [17, 64, 65, 1], [33] * 9, [3] * 70])
@pytest.mark.parametrize("precisions", NARROW)
@pytest.mark.parametrize("size", [16, 32, 48])
def test_bfloat16_stays_near(lengths: list[int], precisions: tuple[Precision, Precision], size: int) -> None:
    torch.manual_seed(0)
    model = bert(4, size, 2, 256)
    ids, mask = texts(lengths)
    encoder, wanted = narrow_encoder(model, *precisions), expected(model, ids, mask)
    assert difference(encoder(ids, None, mask), wanted) < 1e-2
    assert difference(encoder.first(ids, None, mask), wanted[:, 0]) < 1e-2


@pytest.mark.parametrize("precisions", NARROW)
def test_bfloat16_with_biases_by_position_and_holes_in_masks(precisions: tuple[Precision, Precision]) -> None:
    torch.manual_seed(0)
    model, bias = bert(4, 32, 2, 256), torch.randn(4, 2 * 512 + 1)
    narrow = narrow_encoder(model, *precisions)
    narrow = Encoder(replace(narrow.weights, relative=bias), kernels(), narrow.attention)
    single = Encoder(replace(encoder_weights(model, "fp32"), relative=bias), kernels())
    ids, mask = texts([200, 70, 1])
    mask[0, ::3] = 0
    mask[1, :11] = 0
    wanted = single(ids, None, mask)
    assert difference(narrow(ids, None, mask), wanted) < 1e-2
    assert difference(narrow.first(ids, None, mask), wanted[:, 0]) < 1e-2


@pytest.mark.parametrize("target", TARGETS)
def test_numbers_too_large_to_normalise_give_nan(target: str) -> None:
    """And not the bias alone, which looks like a result."""
    torch.manual_seed(0)
    model = bert(2, 8, 2, 30)
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight[0] = 1e30
        model.encoder.layer[1].output.dense.bias[0] = 1e30
    ids, mask = texts([20, 3])
    encoder = encoder_of(model, target)
    assert expected(model, ids[:1], mask[:1]).isnan().all()
    assert encoder(ids, None, mask)[mask.bool()].isnan().all()
    assert encoder.first(ids, None, mask).isnan().all()


def test_products_of_tiles_leave_those_of_others_as_they_were() -> None:
    """AMX is set up for sizes of tiles; PyTorch multiplies with its own."""
    torch.manual_seed(0)
    encoder = narrow_encoder(bert(4, 32, 1, 64), "fp32", "bf16")
    a, b = torch.randn(64, 96).bfloat16(), torch.randn(96, 80).bfloat16()
    wanted, (ids, _) = a @ b, texts([70])
    hidden = encoder(ids)
    assert torch.equal(a @ b, wanted)
    assert torch.equal(encoder(ids), hidden)
    assert torch.equal(copy.deepcopy(encoder)(ids), hidden)


def test_heads_that_are_no_whole_tiles_are_refused() -> None:
    assert encoder_of(bert(4, 32, 1, 64)).weights.has_tiles
    assert not encoder_of(bert(4, 24, 1, 64)).weights.has_tiles
    assert not encoder_of(bert(1, 272, 1, 64)).weights.has_tiles
    with pytest.raises(ValueError, match="multiple of 16"):
        narrow_encoder(bert(4, 24, 1, 64), "fp32", "bf16")(texts([5])[0])


@pytest.mark.parametrize("precisions", [("fp32", "fp32"), *NARROW])
def test_a_text_does_not_depend_on_its_batch_or_on_threads(precisions: tuple[Precision, Precision]) -> None:
    """Bit for bit: padding, neighbours and threads change where a token is computed, not how."""
    torch.manual_seed(0)
    encoder = narrow_encoder(bert(4, 16, 2, 64), *precisions)
    lengths = [5, 70, 31, 128, 16, 90, 300, 2, 64]
    ids, mask = texts(lengths)
    together, first = encoder(ids, None, mask), encoder.first(ids, None, mask)
    try:
        torch.set_num_threads(2)
        assert torch.equal(encoder(ids, None, mask), together)
        assert torch.equal(encoder.first(ids, None, mask), first)
    finally:
        torch.set_num_threads(1)
    for row, length in enumerate(lengths):
        alone = ids[row : row + 1, :length]
        assert torch.equal(encoder(alone)[0], together[row, :length])
        assert torch.equal(encoder.first(alone)[0], first[row])
        assert not together[row, length:].any()


def test_masks_with_holes_padding_on_the_left_and_nothing_kept() -> None:
    torch.manual_seed(0)
    model = bert()
    ids = torch.randint(1, VOCABULARY, (3, 40))
    mask = torch.ones_like(ids)
    mask[0, :11] = 0
    mask[1, ::3] = 0
    mask[2] = 0
    encoder = encoder_of(model)
    found, wanted = encoder(ids, None, mask), expected(model, ids, mask)
    assert difference(encoder.first(ids, None, mask), found[:, 0]) < 1e-5
    assert difference(found[:2] * mask[:2, :, None], wanted[:2]) < 1e-5
    assert difference(found[2], expected(model, ids, torch.ones_like(ids))[2]) < 1e-5


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_layers_that_are_empty_or_full(density: float) -> None:
    torch.manual_seed(0)
    model = bert()
    make_sparse(model, 4, density)
    ids, mask = texts([40, 7])
    encoder, wanted = encoder_of(model), expected(model, ids, mask)
    assert difference(encoder(ids, None, mask), wanted) < 1e-5
    assert difference(encoder.first(ids, None, mask), wanted[:, 0]) < 1e-5


def test_wrong_inputs_are_refused() -> None:
    encoder = encoder_of(bert())
    ids = torch.ones(2, 5, dtype=torch.long)
    for wrong, why in ((torch.full_like(ids, VOCABULARY), "vocabulary"), (ids * -1, "vocabulary")):
        with pytest.raises(ValueError, match=why):
            encoder(wrong)
    with pytest.raises(ValueError, match="token type"):
        encoder(ids, ids * 2)
    with pytest.raises(ValueError, match="longer than the model's positions"):
        encoder(torch.ones(1, 513, dtype=torch.long))
    with pytest.raises(ValueError, match="different shapes"):
        encoder(ids, None, ids[:1])
    with pytest.raises(ValueError, match="no first token"):
        encoder.first(ids[:, :0])
    with pytest.raises(ValueError, match="vocabulary"):
        encoder.first(ids * -1)
    # What the mask does not keep is not looked at.
    mask = torch.tensor([[1, 1, 0, 0, 0]] * 2)
    encoder(torch.where(mask == 1, ids, 10**9), None, mask)


def test_empty_batches_and_copies() -> None:
    encoder = encoder_of(bert())
    assert encoder(torch.ones(0, 5, dtype=torch.long)).shape == (0, 5, 32)
    assert encoder(torch.ones(2, 0, dtype=torch.long)).shape == (2, 0, 32)
    ids = torch.randint(1, VOCABULARY, (2, 9))
    assert torch.equal(copy.deepcopy(encoder)(ids), encoder(ids))
    assert torch.equal(encoder(ids.int()), encoder(ids))
    assert torch.equal(encoder(ids.repeat(1, 2)[:, ::2]), encoder(ids.repeat(1, 2)[:, ::2].contiguous()))
