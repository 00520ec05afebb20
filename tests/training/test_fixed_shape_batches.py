"""A teacher's answer has the same bits in every company; one that is no number is not kept."""

from __future__ import annotations

import random
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from hydraprune.data.batches import Batches, Encoded
from hydraprune.errors import UserError
from hydraprune.models.attention import choose_attention
from hydraprune.runs.setup import accelerator_for
from hydraprune.training.distillation import Distiller, HiddenStates, Logits
from hydraprune.training.fixed_shape_batches import Groups
from hydraprune.training.settings import Settings
from hydraprune.training.teacher_cache import Lesson, teacher_of
from hydraprune.training.teachers import GroupedTeacher, StoredTeacher
from hydraprune.utils.cache import Cache

# Every length up to 40, one that is alone in its group, an empty text, and one longer than a group's tokens.
LENGTHS = [*range(1, 41), *range(1, 41), *range(3, 20), *[7] * 90, 130, 0, 600]
DISTILLERS: list[Distiller] = [HiddenStates(2.0), Logits(0.5)]


def lesson(distiller: Distiller, precision: str, lengths: list[int] = LENGTHS) -> Lesson:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = BertConfig(vocab_size=50, max_position_embeddings=600, num_labels=3, **sizes)
    model = BertForSequenceClassification(config)
    choose_attention(model, torch.device("cpu"))
    shuffled = random.Random(0).sample(lengths, len(lengths))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (sum(lengths),), generator=generator, dtype=torch.int32)
    offsets = torch.tensor([0, *accumulate(shuffled)])
    data = Encoded({"input_ids": ids}, offsets, torch.zeros(len(lengths), dtype=torch.long), 0)
    accelerator = accelerator_for(Settings(epochs=1, batch_size=8, device="cpu", precision=precision))
    return Lesson(model, distiller, Batches(data, 8), accelerator, precision, "distill.teacher=here")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("distiller", DISTILLERS, ids=lambda d: type(d).__name__)
def test_asked_once_and_asked_in_every_step_are_the_same_bits(
    distiller: Distiller, precision: str, tmp_path: Path
) -> None:
    asked = lesson(distiller, precision)
    kept, _ = teacher_of(asked, Cache(tmp_path, 1.0))
    anew, _ = teacher_of(asked, Cache(tmp_path, 0.0))
    assert (type(kept), type(anew)) == (StoredTeacher, GroupedTeacher)
    for size, grouping in ((7, 1), (32, 50)):
        for batch in Batches(asked.data, size, 3, grouping).epoch():
            with asked.accelerator.autocast():
                ours, theirs = kept.answers(batch), anew.answers(batch)
            assert ours is not None
            assert theirs is not None
            # Padded positions, too: a gradient of zero has a sign.
            assert ours.dtype == theirs.dtype == torch.float32
            assert torch.equal(ours, theirs)


def test_all_of_a_length_are_asked_in_one_shape_and_each_in_its_place() -> None:
    groups, chooses = Groups(torch.tensor(LENGTHS), tokens=64), random.Random(1)
    sizes: dict[int, set[int]] = {}
    places: dict[int, set[int]] = {}
    for _ in range(50):
        wanted = chooses.sample(range(len(LENGTHS)), 20)
        found = groups.of(wanted)
        assert sorted(example for group in found for example in group.asked.values()) == sorted(wanted)
        for group in found:
            (length,) = {LENGTHS[example] for example in group.examples}
            sizes.setdefault(length, set()).add(len(group.examples))
            assert len(group.examples) * length <= max(64, length)
            for place, example in group.asked.items():
                assert group.examples[place] == example
                places.setdefault(example, set()).add(place)
    assert all(len(seen) == 1 for seen in [*sizes.values(), *places.values()])
    assert {len(seen) for seen in sizes.values()} == {1}
    assert max(max(seen) for seen in sizes.values()) > 5


def test_all_at_once_fill_their_groups() -> None:
    groups = Groups(torch.tensor([7] * 90 + [3] * 5), tokens=64)
    found = groups.of(range(95))
    # 10 groups of 9 sevens, and the threes together; nobody is asked for another's sake.
    assert [len(group.examples) for group in found] == [9] * 10 + [5]
    assert all(len(group.asked) == len(group.examples) for group in found)


class Broken(nn.Module):
    """Answers no number to every text that begins with this token."""

    def __init__(self, inner: nn.Module, token: int, value: float) -> None:
        super().__init__()
        self.inner, self.token, self.value = inner, token, value
        self.config = inner.config

    def forward(self, input_ids: Tensor, **rest: Tensor) -> object:
        said = self.inner(input_ids=input_ids, **rest)
        said.logits[input_ids[:, 0] == self.token] = self.value
        return said


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_an_answer_that_is_no_number_is_not_kept(value: float, tmp_path: Path) -> None:
    asked = lesson(Logits(0.5), "fp32", [4, 9, 5])
    example = 1
    token = int(asked.data.inputs["input_ids"][asked.data.offsets[example]])
    object.__setattr__(asked, "model", Broken(asked.model, token, value))
    with pytest.raises(UserError) as refused:
        teacher_of(asked, Cache(tmp_path, 1.0))
    assert str(refused.value).startswith(f"distill.teacher=here: answers {value} to training example {example} ")
    assert "\n" not in str(refused.value)
    assert [file.suffix for file in (tmp_path / "answers").iterdir()] == [".lock"]
