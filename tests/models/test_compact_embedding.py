"""Compact embedding: training only the rows in use gives the same model as training all rows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from data_helpers import encoded_of, random_ids
from model_helpers import small_model
from torch import nn
from transformers import AlbertConfig, AlbertForSequenceClassification, AutoModelForSequenceClassification

from hydraprune.data.batches import Batches, Encoded
from hydraprune.models.compact_embedding import CompactEmbedding, compact, expand
from hydraprune.training.parameter_groups import decay_groups

WORDS = 60
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# Family -> (fields of its config, padding row of its embedding). GPT-2 has none and is padded with a word.
FAMILIES: dict[str, tuple[dict[str, Any], int | None]] = {
    "bert": (NO_DROPOUT, 0),
    "roberta": (NO_DROPOUT, 1),
    "distilbert": ({"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}, 0),
    "gpt2": ({"pad_token_id": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}, None),
}
Optimizer = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizer] = {
    "AdamW": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1),
    "AdamW amsgrad": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1, amsgrad=True),
    "SGD": partial(torch.optim.SGD, lr=0.1, weight_decay=0.1),
    "SGD momentum": partial(torch.optim.SGD, lr=0.1, weight_decay=0.1, momentum=0.9),
    "SGD nesterov": partial(torch.optim.SGD, lr=0.1, weight_decay=0.1, momentum=0.9, nesterov=True),
}


def network(kind: str = "bert") -> nn.Module:
    torch.manual_seed(0)
    return small_model(kind, 16, 1, 2, 32, WORDS, **FAMILIES[kind][0])


def words(kind: str = "bert", highest: int = 30, seed: int = 0) -> Encoded:
    """Examples of words up to `highest`, not all of which occur."""
    lengths = [5, 9, 3, 7, 12, 4, 6, 8]
    padding = FAMILIES[kind][1]
    labels = torch.arange(len(lengths)) % 2
    return encoded_of(lengths, random_ids(sum(lengths), 3, highest, seed), labels, 2 if padding is None else padding)


def train(model: nn.Module, optimizers: Optimizer, data: Encoded, epochs: int = 6, clip: bool = False) -> None:
    optimizer = optimizers(decay_groups(model))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step % 5))
    model.train()
    for epoch in range(epochs):
        for batch in Batches(data, 3, shuffle_seed=1).epoch(epoch):
            logits = model(**batch.inputs).logits
            nn.functional.cross_entropy(logits, batch.labels).backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)


def both_ways(kind: str, optimizers: Optimizer, **how: Any) -> tuple[nn.Module, nn.Module]:
    """(trained with the full embedding, trained with the compact one and expanded)."""
    full, small, data = network(kind), network(kind), words(kind)
    train(full, optimizers, data, **how)
    assert compact(small, optimizers, [data])
    assert isinstance(embedding(small), CompactEmbedding)
    train(small, optimizers, data, **how)
    expand(small)
    return full, small


def embedding(model: nn.Module) -> Any:
    return model.get_input_embeddings()  # type: ignore[operator]


def unused(data: Encoded) -> list[int]:
    found = {*data.inputs["input_ids"].tolist(), data.pad_id}
    return [word for word in range(WORDS) if word not in found]


def check_same(full: nn.Module, small: nn.Module) -> None:
    expected, found = full.state_dict(), small.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("optimizers", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_it_equals_training_all_rows(optimizers: Optimizer) -> None:
    full, small = both_ways("bert", optimizers)
    check_same(full, small)
    rows, before = embedding(small).weight, embedding(network()).weight
    assert not torch.allclose(before, rows, rtol=1e-2)
    # Unused rows are only decayed, by much more than rounding errors.
    idle = unused(words())
    assert torch.allclose(rows[idle], embedding(full).weight[idle], rtol=1e-5, atol=0)
    assert bool((rows[idle].abs() < before[idle].abs() * 0.995).all())
    assert bool((rows[0] == 0).all())


@pytest.mark.parametrize("kind", FAMILIES)
def test_it_works_for_every_family(kind: str) -> None:
    full, small = both_ways(kind, OPTIMIZERS["AdamW"])
    check_same(full, small)


def test_gradients_are_clipped_by_the_same_norm() -> None:
    check_same(*both_ways("bert", OPTIMIZERS["SGD"], clip=True))


@pytest.mark.parametrize(
    "optimizers",
    [partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.0), partial(torch.optim.SGD, lr=0.1, momentum=0.9)],
    ids=["AdamW", "SGD"],
)
def test_without_weight_decay_unused_rows_keep_their_bits(optimizers: Optimizer) -> None:
    _, small = both_ways("bert", optimizers)
    rows, before = embedding(small).weight, embedding(network()).weight
    idle = unused(words())
    assert len(idle) > WORDS // 2
    assert torch.equal(rows[idle], before[idle])
    seen = int(words().inputs["input_ids"][0])
    assert not torch.equal(rows[seen], before[seen])


def test_before_training_the_outputs_are_unchanged() -> None:
    data = words()
    model, before = network().eval(), network().eval()
    assert compact(model, torch.optim.AdamW, [data])
    (batch,) = Batches(data, 8).epoch()
    assert torch.equal(model(**batch.inputs).logits, before(**batch.inputs).logits)
    expand(model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.state_dict().items())
    # Expanding again changes nothing.
    expand(model)
    assert type(embedding(model)) is nn.Embedding


@pytest.mark.parametrize("kind", FAMILIES)
def test_expanding_restores_a_plain_embedding(kind: str) -> None:
    model = network(kind)
    before = embedding(model)
    assert compact(model, torch.optim.AdamW, [words(kind)])
    assert embedding(model).padding_idx is None or kind != "gpt2"
    expand(model)
    after = embedding(model)
    assert type(after) is nn.Embedding
    assert after.padding_idx == before.padding_idx == FAMILIES[kind][1]
    assert after.weight.shape == before.weight.shape
    assert after.weight.requires_grad


def test_an_expanded_model_is_saved_as_usual(tmp_path: Path) -> None:
    full, small = both_ways("bert", OPTIMIZERS["AdamW"])
    for name, model in (("full", full), ("small", small)):
        model.save_pretrained(tmp_path / name)  # type: ignore[operator]
    assert (tmp_path / "small" / "config.json").read_text() == (tmp_path / "full" / "config.json").read_text()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "small")
    check_same(small, loaded)


def test_fewer_rows_are_trained() -> None:
    model, data = network(), words()
    assert compact(model, torch.optim.AdamW, [data])
    # And one more, which records the decay.
    assert embedding(model).weight.shape == (WORDS - len(unused(data)) + 1, 16)


def test_a_token_outside_the_data_is_an_error() -> None:
    model, data = network(), words()
    assert compact(model, torch.optim.AdamW, [data])
    for word in unused(data):
        with pytest.raises(IndexError):
            model(input_ids=torch.tensor([[5, word]]))
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[5, WORDS]]))


def test_the_tokens_of_all_data_sets_are_kept() -> None:
    model, data, evaluation = network(), words(), words(highest=40, seed=3)
    assert compact(model, torch.optim.AdamW, [data, evaluation])
    for encoded in (data, evaluation):
        for batch in Batches(encoded, 3).epoch():
            assert bool(model(**batch.inputs).logits.isfinite().all())


def test_the_padding_row_stays_zero_in_training() -> None:
    model, data = network("roberta"), words("roberta")
    assert compact(model, torch.optim.AdamW, [data])
    train(model, OPTIMIZERS["AdamW"], data)
    expand(model)
    assert embedding(model).padding_idx == 1
    assert bool((embedding(model).weight[1] == 0).all())


# Models that are left alone -----------------------------------------------------------------------------


def untouched(model: nn.Module, optimizer: Any, data: Encoded) -> bool:
    """Whether `compact` declines and leaves the model unchanged."""
    before, weights = embedding(model), copy.deepcopy(model.state_dict())
    refused = not compact(model, optimizer, [data])
    return (
        refused
        and embedding(model) is before
        and all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.Adam,
        torch.optim.Adafactor,
        torch.optim.Adagrad,
        torch.optim.RMSprop,
        torch.optim.NAdam,
        partial(torch.optim.Adam, lr=1e-3, weight_decay=0.1),
        type("Mine", (torch.optim.AdamW,), {}),
    ],
    ids=lambda o: getattr(o, "__name__", "partial"),
)
def test_other_optimizers_train_the_full_embedding(optimizer: Any) -> None:
    assert untouched(network(), optimizer, words())


def test_with_most_rows_in_use_nothing_is_replaced() -> None:
    # 48 of 60 rows are the largest share that pays.
    for used, done in ((48, True), (49, False)):
        data = Encoded({"input_ids": torch.arange(used)}, torch.tensor([0, used]), torch.zeros(1).long(), 0)
        assert untouched(network(), torch.optim.AdamW, data) != done


def test_a_frozen_embedding_is_left_alone() -> None:
    model = network()
    embedding(model).requires_grad_(False)
    assert untouched(model, torch.optim.AdamW, words())


def test_an_unknown_family_is_left_alone() -> None:
    model = AlbertForSequenceClassification(
        AlbertConfig(
            vocab_size=WORDS,
            embedding_size=8,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        )
    )
    assert untouched(model, torch.optim.AdamW, words())


def test_an_embedding_with_max_norm_is_left_alone() -> None:
    model = network()
    embedding(model).max_norm = 1.0
    assert untouched(model, torch.optim.AdamW, words())
