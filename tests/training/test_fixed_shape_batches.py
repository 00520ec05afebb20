"""Fixed-shape batches: a teacher's outputs for an example have the same bits in every batch."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from data_helpers import encoded_of, random_ids
from model_helpers import small_model
from torch import Tensor, nn

from hydraprune.data.batches import Batches
from hydraprune.errors import UserError
from hydraprune.models.attention import choose_attention
from hydraprune.runs.setup import accelerator_for
from hydraprune.training.distillation import Distiller, HiddenStates, Logits
from hydraprune.training.fixed_shape_batches import FixedShapeBatches
from hydraprune.training.settings import Settings
from hydraprune.training.teacher_cache import TeacherSpec, make_teacher
from hydraprune.training.teachers import FixedShapeTeacher, StoredTeacher
from hydraprune.utils.cache import Cache

# Every length up to 40, one that occurs once, an empty text, and one longer than the tokens of a batch.
LENGTHS = [*range(1, 41), *range(1, 41), *range(3, 20), *[7] * 90, 130, 0, 600]
DISTILLERS: list[Distiller] = [HiddenStates(2.0), Logits(0.5)]


def spec_of(distiller: Distiller, precision: str, lengths: list[int] = LENGTHS) -> TeacherSpec:
    torch.manual_seed(0)
    model = small_model("bert", 32, 2, 2, 128, 50, max_position_embeddings=600, num_labels=3)
    choose_attention(model, torch.device("cpu"))
    shuffled = random.Random(0).sample(lengths, len(lengths))
    data = encoded_of(shuffled, random_ids(sum(lengths), 1, 50, seed=1))
    accelerator = accelerator_for(Settings(epochs=1, batch_size=8, device="cpu", precision=precision))
    return TeacherSpec(model, distiller, Batches(data, 8), accelerator, precision, "distill.teacher", "here")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("distiller", DISTILLERS, ids=lambda d: type(d).__name__)
def test_stored_and_online_outputs_have_the_same_bits(distiller: Distiller, precision: str, tmp_path: Path) -> None:
    spec = spec_of(distiller, precision)
    stored, _ = make_teacher(spec, Cache(tmp_path, 1.0))
    online, _ = make_teacher(spec, Cache(tmp_path, 0.0))
    assert (type(stored), type(online)) == (StoredTeacher, FixedShapeTeacher)
    for size, grouping in ((7, 1), (32, 50)):
        for batch in Batches(spec.data, size, 3, grouping).epoch():
            with spec.accelerator.autocast():
                ours, theirs = stored.outputs(batch), online.outputs(batch)
            assert ours is not None
            assert theirs is not None
            # Padded positions too, since a gradient of zero has a sign.
            assert ours.dtype == theirs.dtype == torch.float32
            assert torch.equal(ours, theirs)


def test_every_length_has_one_shape_and_every_example_one_row() -> None:
    batches, chooser = FixedShapeBatches(torch.tensor(LENGTHS), tokens=64), random.Random(1)
    sizes: dict[int, set[int]] = {}
    rows: dict[int, set[int]] = {}
    for _ in range(50):
        wanted = chooser.sample(range(len(LENGTHS)), 20)
        found = batches.covering(wanted)
        assert sorted(example for batch in found for example in batch.requested.values()) == sorted(wanted)
        for batch in found:
            (length,) = {LENGTHS[example] for example in batch.examples}
            sizes.setdefault(length, set()).add(len(batch.examples))
            assert len(batch.examples) * length <= max(64, length)
            for row, example in batch.requested.items():
                assert batch.examples[row] == example
                rows.setdefault(example, set()).add(row)
    assert all(len(seen) == 1 for seen in [*sizes.values(), *rows.values()])
    assert {len(seen) for seen in sizes.values()} == {1}
    assert max(max(seen) for seen in sizes.values()) > 5


def test_a_whole_data_set_fills_its_batches() -> None:
    batches = FixedShapeBatches(torch.tensor([7] * 90 + [3] * 5), tokens=64)
    found = batches.covering(range(95))
    # 10 batches of 9 examples of length 7, and one of length 3; no row is unused.
    assert [len(batch.examples) for batch in found] == [9] * 10 + [5]
    assert all(len(batch.requested) == len(batch.examples) for batch in found)


class Broken(nn.Module):
    """A model whose logits are `value` for every text that begins with this token."""

    def __init__(self, inner: nn.Module, token: int, value: float) -> None:
        super().__init__()
        self.inner, self.token, self.value = inner, token, value
        self.config = inner.config

    def forward(self, input_ids: Tensor, **rest: Tensor) -> object:
        found = self.inner(input_ids=input_ids, **rest)
        found.logits[input_ids[:, 0] == self.token] = self.value
        return found


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_non_finite_outputs_are_not_stored(value: float, tmp_path: Path) -> None:
    spec = spec_of(Logits(0.5), "fp32", [4, 9, 5])
    example = 1
    token = int(spec.data.inputs["input_ids"][spec.data.offsets[example]])
    object.__setattr__(spec, "model", Broken(spec.model, token, value))
    with pytest.raises(UserError) as refused:
        make_teacher(spec, Cache(tmp_path, 1.0))
    assert str(refused.value).startswith(
        f"distill.teacher=here: the teacher's output for training example {example} (counted from 0) holds {value}; "
    )
    assert "\n" not in str(refused.value)
    assert [file.suffix for file in (tmp_path / "answers").iterdir()] == [".lock"]
