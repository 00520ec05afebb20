"""Batches: every example once per epoch, random order, grouping by length, padding, token indices."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import torch
from data_helpers import encoded_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hydraprune.data.batches import Batches, Encoded

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=60)
SIZES = st.integers(1, 9)
GROUPINGS = st.sampled_from([1, 2, 3, 7, 50])


def flat(lengths: list[int], pad_id: int = 0) -> Encoded:
    """Examples of these lengths with unique token ids and labels."""
    types = torch.arange(1, sum(lengths) + 1, dtype=torch.int32) % 3 + 1
    labels = torch.arange(len(lengths)) + 1000
    return encoded_of(lengths, labels=labels, pad_id=pad_id, token_type_ids=types)


def shuffled(lengths: list[int], size: int, grouping: int, seed: int = 0) -> Batches:
    return Batches(flat(lengths), size, seed, grouping)


def long_tailed(count: int) -> list[int]:
    """Lengths like those of sentences: half of them up to 24 tokens, a few at the limit."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.exp(3.2 + 0.6 * torch.randn(count, generator=generator))
    return [int(n) for n in drawn.clamp(4, 128)]


def padding(batches: Batches) -> float:
    """Positions computed per real token."""
    lengths = batches.data.lengths
    positions = sum(int(lengths[indices].max()) * len(indices) for indices in batches.order())
    return positions / int(lengths.sum())


def order(batches: Batches, epoch: int = 0) -> list[list[int]]:
    return [indices.tolist() for indices in batches.order(epoch)]


@given(LENGTHS, SIZES, GROUPINGS, st.integers(0, 5), st.booleans())
@settings(deadline=None, max_examples=100)
def test_an_epoch_has_every_example_exactly_once(
    lengths: list[int], size: int, grouping: int, epoch: int, seeded: bool
) -> None:
    batches = Batches(flat(lengths), size, 3 if seeded else None, grouping)
    found = order(batches, epoch)
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    assert len(found) == len(batches)
    assert sorted(len(batch) for batch in found)[1:] == [size] * (len(found) - 1)


@given(LENGTHS, SIZES, GROUPINGS, st.integers(0, 2**31), st.integers(0, 100))
@settings(deadline=None, max_examples=50)
def test_the_order_depends_on_seed_and_epoch_alone(
    lengths: list[int], size: int, grouping: int, seed: int, epoch: int
) -> None:
    assert order(shuffled(lengths, size, grouping, seed), epoch) == order(
        shuffled(lengths, size, grouping, seed), epoch
    )


@pytest.mark.parametrize("grouping", [1, 2, 50])
def test_every_seed_and_epoch_has_its_own_order(grouping: int) -> None:
    lengths = long_tailed(4000)
    orders = [order(shuffled(lengths, 16, grouping, seed), epoch) for seed in range(3) for epoch in range(3)]
    assert all(one != other for index, one in enumerate(orders) for other in orders[:index])
    # Not the same batches in another order, either.
    batches = [{tuple(sorted(batch)) for batch in found} for found in orders]
    assert all(len(one & other) < 3 for index, one in enumerate(batches) for other in batches[:index])


def test_grouping_saves_padding() -> None:
    lengths = long_tailed(5000)
    assert padding(shuffled(lengths, 16, 50)) <= 1.05
    assert padding(shuffled(lengths, 16, 1)) > 1.5
    # Without a seed all examples are sorted, which pads least.
    assert 1.0 <= padding(Batches(flat(lengths), 16)) <= padding(shuffled(lengths, 16, 50))


@given(LENGTHS, SIZES, st.integers(0, 1000), st.integers(0, 9))
@settings(deadline=None, max_examples=50)
def test_without_grouping_examples_are_shuffled(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    drawn = torch.randperm(len(lengths), generator=generator)
    expected = [part.tolist() for part in torch.split(drawn, size)]
    assert order(shuffled(lengths, size, 1, seed), epoch) == expected


@given(LENGTHS, SIZES, st.sampled_from([2, 3, 7]))
@settings(deadline=None, max_examples=100)
def test_a_batch_has_similar_lengths_from_one_draw(lengths: list[int], size: int, grouping: int) -> None:
    # Both start with the same permutation, so these are the draws within which examples are grouped.
    plain = shuffled(lengths, size, 1)
    grouping = max(1, min(grouping, len(plain) // 4))
    drawn = torch.cat(plain.order()).split(size * grouping)
    found = [set(batch) for batch in order(shuffled(lengths, size, grouping))]
    for examples in (set(draw.tolist()) for draw in drawn):
        own = [batch for batch in found if batch & examples]
        assert set().union(*own) == examples
        if grouping == 1:
            continue
        spans = sorted((min(lengths[i] for i in batch), max(lengths[i] for i in batch)) for batch in own)
        assert all(longest <= shortest for (_, longest), (shortest, _) in pairwise(spans))


def test_an_epoch_has_at_least_four_draws() -> None:
    # With one draw the same examples of a small data set would share a batch in every epoch.
    lengths = long_tailed(640)
    pairs = [
        {tuple(sorted(pair)) for batch in order(shuffled(lengths, 16, 50), epoch) for pair in combinations(batch, 2)}
        for epoch in (0, 1)
    ]
    assert len(pairs[0] & pairs[1]) < 0.25 * len(pairs[0])


def test_few_widths_need_little_more_padding() -> None:
    lengths = long_tailed(5000)
    exact = shuffled(lengths, 16, 50)
    few = replace(exact, few_widths=512)
    widths = [{batch.inputs["input_ids"].shape[1] for batch in batches.epoch()} for batches in (exact, few)]
    assert len(widths[1] - set(range(32))) < 0.6 * len(widths[0] - set(range(32)))
    for one, other in zip(exact.epoch(), few.epoch(), strict=True):
        wide, wider = one.inputs["input_ids"], other.inputs["input_ids"]
        assert wide.shape[1] <= wider.shape[1] < 1.13 * wide.shape[1]
        assert torch.equal(wider[:, : wide.shape[1]], wide)
        assert int(other.inputs["attention_mask"].sum()) == int(one.inputs["attention_mask"].sum())


def test_few_widths_never_exceed_the_longest_allowed() -> None:
    # 50 would be rounded to 52, which a model with 50 positions cannot take.
    (batch,) = Batches(flat([50, 3]), 2, few_widths=50).epoch()
    assert batch.inputs["input_ids"].shape == (2, 50)
    (batch,) = Batches(flat([50, 3]), 2, few_widths=51).epoch()
    assert batch.inputs["input_ids"].shape == (2, 51)


def test_batches_are_not_sorted_by_length() -> None:
    lengths = long_tailed(4000)
    longest = torch.tensor([max(lengths[i] for i in batch) for batch in order(shuffled(lengths, 16, 50))])
    rises = (longest.diff() > 0).float().mean()
    assert 0.3 < rises < 0.7
    positions = torch.arange(len(longest))
    correlation = torch.corrcoef(torch.stack([positions, longest]).float())[0, 1]
    # Five sigma of a random order.
    assert abs(float(correlation)) < 5 / len(longest) ** 0.5


def naive(data: Encoded, indices: Tensor) -> dict[str, Tensor]:
    rows = [slice(int(data.offsets[i]), int(data.offsets[i + 1])) for i in indices]
    padded = {
        key: pad_sequence([values[row].long() for row in rows], True, data.pad_id if key == "input_ids" else 0)
        for key, values in data.inputs.items()
    }
    ones = [torch.ones(row.stop - row.start, dtype=torch.long) for row in rows]
    return padded | {"attention_mask": pad_sequence(ones, True)}


@given(LENGTHS, SIZES, GROUPINGS, st.sampled_from([0, 1, 99, 50_256]))
@settings(deadline=None, max_examples=100)
def test_batches_equal_examples_padded_one_by_one(lengths: list[int], size: int, grouping: int, pad_id: int) -> None:
    data = flat(lengths, pad_id)
    for batch in Batches(data, size, 1, grouping).epoch():
        expected = naive(data, batch.indices)
        assert batch.inputs.keys() == expected.keys()
        for key, values in batch.inputs.items():
            assert values.dtype == torch.long
            assert torch.equal(values, expected[key]), key
        assert batch.labels.tolist() == (batch.indices + 1000).tolist()


@given(LENGTHS, st.data())
@settings(deadline=None, max_examples=50)
def test_token_indices_point_at_the_tokens(lengths: list[int], data: st.DataObject) -> None:
    encoded = flat(lengths)
    indices = torch.tensor(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8)))
    found, mask = encoded.token_indices(indices)
    assert found.shape == mask.shape == (len(indices), max(lengths[i] for i in indices))
    for row, index in enumerate(indices.tolist()):
        start, end = encoded.offsets[index : index + 2].tolist()
        assert found[row, mask[row]].tolist() == list(range(start, end))
        assert set(found[row, ~mask[row]].tolist()) <= {start}


@given(LENGTHS, SIZES)
@settings(deadline=None, max_examples=50)
def test_without_a_seed_examples_are_sorted_by_length_stably(lengths: list[int], size: int) -> None:
    found = [index for batch in order(Batches(flat(lengths), size), epoch=3) for index in batch]
    assert found == sorted(range(len(lengths)), key=lambda i: -lengths[i])


def test_an_example_may_have_no_tokens() -> None:
    # As an empty text has for a tokenizer that adds no special tokens.
    for lengths in ([2, 0, 3], [0, 2], [2, 0]):
        data = flat(lengths, 7)
        (batch,) = Batches(data, 8, 0).epoch()
        expected = naive(data, batch.indices)
        assert all(torch.equal(values, expected[key]) for key, values in batch.inputs.items())
    # A model needs at least one position.
    _, last = Batches(flat([3, 0, 2, 0], 7), 2).epoch()
    assert last.inputs["input_ids"].tolist() == [[7], [7]]
    assert last.inputs["attention_mask"].tolist() == [[0], [0]]
