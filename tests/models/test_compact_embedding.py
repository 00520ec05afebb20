"""A vocabulary cut to what occurs: trained, it is what training all of it would give."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hydraprune.data.batches import Batches, Encoded
from hydraprune.models.compact_embedding import CompactEmbedding, compact, expand
from hydraprune.training.parameter_groups import decay_groups

WORDS = 60
SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int | None]] = {
    "bert": (lambda: BertForSequenceClassification(BertConfig(**SIZES)), 0),
    "roberta": (lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES)), 1),
    "distilbert": (
        lambda: DistilBertForSequenceClassification(
            DistilBertConfig(
                vocab_size=WORDS, dim=16, n_layers=1, n_heads=2, hidden_dim=32, dropout=0.0, attention_dropout=0.0,
                seq_classif_dropout=0.0,
            )
        ),
        0,
    ),
    # No padding row of its own: it is padded with a word.
    "gpt2": (
        lambda: GPT2ForSequenceClassification(
            GPT2Config(
                vocab_size=WORDS, n_embd=16, n_layer=1, n_head=2, pad_token_id=2, resid_pdrop=0.0, embd_pdrop=0.0,
                attn_pdrop=0.0,
            )
        ),
        None,
    ),
}  # fmt: skip
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
    return NETWORKS[kind][0]()


def words(kind: str = "bert", highest: int = 30, seed: int = 0) -> Encoded:
    """Examples of words up to `highest`, not all of which occur."""
    lengths = [5, 9, 3, 7, 12, 4, 6, 8]
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, highest, (sum(lengths),), generator=generator, dtype=torch.int32)
    pad = NETWORKS[kind][1]
    labels = torch.arange(len(lengths)) % 2
    return Encoded({"input_ids": ids}, torch.tensor([0, *accumulate(lengths)]), labels, 2 if pad is None else pad)


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
    """(trained whole, trained cut and made whole again)."""
    whole, cut, data = network(kind), network(kind), words(kind)
    train(whole, optimizers, data, **how)
    assert compact(cut, optimizers, [data])
    assert isinstance(embedding(cut), CompactEmbedding)
    train(cut, optimizers, data, **how)
    expand(cut)
    return whole, cut


def embedding(model: nn.Module) -> Any:
    return model.get_input_embeddings()  # type: ignore[operator]


def unused(data: Encoded) -> list[int]:
    found = {*data.inputs["input_ids"].tolist(), data.pad_id}
    return [word for word in range(WORDS) if word not in found]


def check_same(whole: nn.Module, cut: nn.Module) -> None:
    expected, found = whole.state_dict(), cut.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("optimizers", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_it_is_what_training_all_gives(optimizers: Optimizer) -> None:
    whole, cut = both_ways("bert", optimizers)
    check_same(whole, cut)
    rows, before = embedding(cut).weight, embedding(network()).weight
    assert not torch.allclose(before, rows, rtol=1e-2)
    # Of the words that never came nothing is left but what the decay left, and that is well above rounding.
    gone = unused(words())
    assert torch.allclose(rows[gone], embedding(whole).weight[gone], rtol=1e-5, atol=0)
    assert bool((rows[gone].abs() < before[gone].abs() * 0.995).all())
    assert bool((rows[0] == 0).all())


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_family_can(kind: str) -> None:
    whole, cut = both_ways(kind, OPTIMIZERS["AdamW"])
    check_same(whole, cut)


def test_clipped_gradients_are_clipped_as_much() -> None:
    check_same(*both_ways("bert", OPTIMIZERS["SGD"], clip=True))


@pytest.mark.parametrize(
    "optimizers",
    [partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.0), partial(torch.optim.SGD, lr=0.1, momentum=0.9)],
    ids=["AdamW", "SGD"],
)
def test_without_decay_words_that_never_came_keep_their_bits(optimizers: Optimizer) -> None:
    _, cut = both_ways("bert", optimizers)
    rows, before = embedding(cut).weight, embedding(network()).weight
    gone = unused(words())
    assert len(gone) > WORDS // 2
    assert torch.equal(rows[gone], before[gone])
    came = int(words().inputs["input_ids"][0])
    assert not torch.equal(rows[came], before[came])


def test_untrained_it_is_the_same_model() -> None:
    data = words()
    model, before = network().eval(), network().eval()
    assert compact(model, torch.optim.AdamW, [data])
    (batch,) = Batches(data, 8).epoch()
    assert torch.equal(model(**batch.inputs).logits, before(**batch.inputs).logits)
    expand(model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.state_dict().items())
    # There is nothing to expand now.
    expand(model)
    assert type(embedding(model)) is nn.Embedding


@pytest.mark.parametrize("kind", NETWORKS)
def test_expanded_it_is_a_plain_embedding(kind: str) -> None:
    model = network(kind)
    before = embedding(model)
    assert compact(model, torch.optim.AdamW, [words(kind)])
    assert embedding(model).padding_idx is None or kind != "gpt2"
    expand(model)
    after = embedding(model)
    assert type(after) is nn.Embedding
    assert after.padding_idx == before.padding_idx == NETWORKS[kind][1]
    assert after.weight.shape == before.weight.shape
    assert after.weight.requires_grad


def test_expanded_it_is_saved_as_ever(tmp_path: Path) -> None:
    whole, cut = both_ways("bert", OPTIMIZERS["AdamW"])
    for name, model in (("whole", whole), ("cut", cut)):
        model.save_pretrained(tmp_path / name)  # type: ignore[operator]
    assert (tmp_path / "cut" / "config.json").read_text() == (tmp_path / "whole" / "config.json").read_text()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "cut")
    check_same(cut, loaded)


def test_fewer_rows_are_trained() -> None:
    model, data = network(), words()
    assert compact(model, torch.optim.AdamW, [data])
    # One more, which remembers the decay.
    assert embedding(model).weight.shape == (WORDS - len(unused(data)) + 1, 16)


def test_a_word_that_was_not_announced_is_refused() -> None:
    model, data = network(), words()
    assert compact(model, torch.optim.AdamW, [data])
    for word in unused(data):
        with pytest.raises(IndexError):
            model(input_ids=torch.tensor([[5, word]]))
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[5, WORDS]]))


def test_words_of_every_data_set_are_announced() -> None:
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


# Where it is not done -----------------------------------------------------------------------------


def untouched(model: nn.Module, optimizer: Any, data: Encoded) -> bool:
    """Whether `compact` refuses, and leaves the model as it is."""
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
def test_with_other_optimizers_it_is_not_done(optimizer: Any) -> None:
    assert untouched(network(), optimizer, words())


def test_with_most_words_in_use_it_is_not_worth_it() -> None:
    # 48 of 60 are eight tenths: as many as may be in use.
    for used, done in ((48, True), (49, False)):
        data = Encoded({"input_ids": torch.arange(used)}, torch.tensor([0, used]), torch.zeros(1).long(), 0)
        assert untouched(network(), torch.optim.AdamW, data) != done


def test_a_frozen_embedding_is_left_alone() -> None:
    model = network()
    embedding(model).requires_grad_(False)
    assert untouched(model, torch.optim.AdamW, words())


def test_a_model_that_we_do_not_know_is_left_alone() -> None:
    model = AlbertForSequenceClassification(AlbertConfig(**SIZES, embedding_size=8))
    assert untouched(model, torch.optim.AdamW, words())


def test_rows_that_are_kept_short_are_left_alone() -> None:
    model = network()
    embedding(model).max_norm = 1.0
    assert untouched(model, torch.optim.AdamW, words())
