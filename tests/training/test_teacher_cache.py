"""A teacher is asked once: what is kept is what it would say, and belongs to it and its data alone."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from hydraprune.data.batches import Batches, Encoded
from hydraprune.runs.setup import accelerator_for
from hydraprune.training import teacher_cache as answers
from hydraprune.training.distillation import Distiller, HiddenStates, Logits
from hydraprune.training.settings import Settings
from hydraprune.training.teacher_cache import Lesson, teacher_of
from hydraprune.training.teachers import GroupedTeacher, OnlineTeacher, StoredTeacher
from hydraprune.utils.cache import Cache

LENGTHS = [3, 17, 5, 9, 2, 11, 4, 26, 3, 8, 6]
TOKENS = sum(LENGTHS)
WIDTH = 16
DISTILLERS: list[Distiller] = [HiddenStates(2.0), Logits(0.5)]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=32, num_labels=3, **sizes))


def data() -> Encoded:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (TOKENS,), generator=generator, dtype=torch.int32)
    types = torch.randint(0, 2, (TOKENS,), generator=generator, dtype=torch.int32)
    offsets = torch.tensor([0, *accumulate(LENGTHS)])
    return Encoded({"input_ids": ids, "token_type_ids": types}, offsets, torch.arange(len(LENGTHS)) % 3, 0)


def lesson(distiller: Distiller, model: nn.Module | None = None) -> Lesson:
    accelerator = accelerator_for(Settings(epochs=1, batch_size=4, device="cpu"))
    return Lesson(model or network(), distiller, Batches(data(), 4), accelerator, "fp32")


def with_data(asked: Lesson, other: Encoded) -> Lesson:
    return replace(asked, batches=replace(asked.batches, data=other))


@dataclass
class Seen:
    """How many examples a model was given."""

    examples: int = 0


def watch(model: nn.Module, seen: Seen | None = None) -> Seen:
    seen = seen or Seen()
    lock = threading.Lock()

    def count(module: nn.Module, ids: tuple[Tensor, ...], inputs: dict[str, Tensor]) -> None:
        with lock:
            seen.examples += len(ids[0] if ids else inputs["input_ids"])

    model.base_model.register_forward_pre_hook(count, with_kwargs=True)  # type: ignore[union-attr, operator]
    return seen


def whole(teacher: StoredTeacher) -> Tensor:
    return teacher.said.take([(0, int(teacher.offsets[-1]))])


def stored(asked: Lesson, cache: Cache) -> StoredTeacher:
    teacher, _ = teacher_of(asked, cache)
    assert isinstance(teacher, StoredTeacher)
    return teacher


def kept(cache: Cache) -> list[Path]:
    return [file for file in cache.files() if file.parent.name == "answers"]


@pytest.fixture(params=["read", "filed"], autouse=True)
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are held in memory and large ones read bit by bit; ours are small, so this says what is large."""
    if request.param == "filed":
        monkeypatch.setattr(answers, "_SMALL", 100)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 1.0)


@pytest.mark.parametrize("distiller", DISTILLERS, ids=lambda d: type(d).__name__)
def test_stored_answers_are_what_any_batch_would_be_told(distiller: Distiller, cache: Cache) -> None:
    """Up to rounding: what a teacher says in fact of the batch as it is."""
    asked = lesson(distiller)
    student, said = network(seed=1).eval(), stored(asked, cache)
    online = OnlineTeacher(network(), distiller)
    for batch in Batches(asked.data, 3, shuffle_seed=5).epoch():
        ours, theirs = said.answers(batch), online.answers(batch)
        assert theirs is not None
        assert ours.shape == theirs.shape
        real = batch.inputs["attention_mask"].bool() if distiller.per_token else torch.ones(len(ours), dtype=torch.bool)
        assert torch.allclose(ours[real], theirs[real], rtol=0, atol=1e-5)
        losses = [float(distiller.loss(student, batch, given).detach()) for given in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=0, abs=1e-6)
        assert bool(ours.isfinite().all())


def test_a_row_per_real_token_or_per_example_is_kept(cache: Cache) -> None:
    for distiller, shape in zip(DISTILLERS, [(TOKENS, WIDTH), (len(LENGTHS), 3)], strict=True):
        asked = lesson(distiller)
        stored(asked, cache)
        file = cache.folder / "answers" / f"{asked.key()}.npy"
        assert np.load(file).shape == shape
        assert asked.rows == shape[0]
    assert len(kept(cache)) == 2


@pytest.mark.parametrize("distiller", DISTILLERS, ids=lambda d: type(d).__name__)
def test_the_second_time_it_is_read(distiller: Distiller, cache: Cache) -> None:
    seen = []
    for _ in range(3):
        asked = lesson(distiller)
        seen.append(watch(asked.model))
        stored(asked, cache)
        files = [(file, file.read_bytes()) for file in kept(cache)]
        assert len(files) == 1
    # One example tells how wide an answer is; all the rest are asked in the first run alone.
    assert [s.examples for s in seen] == [1 + len(LENGTHS), 1, 1]


def another_bit(asked: Lesson) -> Lesson:
    model = copy.deepcopy(asked.model)
    weight = model.get_parameter("bert.encoder.layer.1.output.dense.weight")
    weight.data.view(torch.int32)[0, 0] ^= 1
    return replace(asked, model=model)


def another_token(asked: Lesson, key: str = "input_ids") -> Lesson:
    inputs = {name: values.clone() for name, values in asked.data.inputs.items()}
    inputs[key][7] ^= 1
    return with_data(asked, replace(asked.data, inputs=inputs))


def another_cut(asked: Lesson) -> Lesson:
    offsets = asked.data.offsets.clone()
    offsets[3] += 1
    return with_data(asked, replace(asked.data, offsets=offsets))


def other_types(asked: Lesson) -> Lesson:
    return another_token(asked, "token_type_ids")


def another_activation(asked: Lesson) -> Lesson:
    model = copy.deepcopy(asked.model)
    model.config.hidden_act = "relu"  # type: ignore[union-attr]
    return replace(asked, model=model)


OTHERS: dict[str, Callable[[Lesson], Lesson]] = {
    "a bit of a weight": another_bit,
    "a token": another_token,
    "a token's type": other_types,
    "where an example ends": another_cut,
    "the model's config": another_activation,
    "precision": lambda asked: replace(asked, precision="bf16"),
    "what is asked": lambda asked: replace(asked, distiller=Logits(0.5)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_changes_answers_changes_the_key(name: str) -> None:
    asked = lesson(HiddenStates(2.0))
    assert OTHERS[name](asked).key() != asked.key()


def test_what_does_not_change_answers_does_not_change_the_key() -> None:
    asked = lesson(HiddenStates(2.0))
    assert lesson(HiddenStates(2.0)).key() == asked.key()
    assert replace(asked, distiller=HiddenStates(5.0)).key() == asked.key()
    assert with_data(asked, replace(asked.data, labels=asked.data.labels + 1)).key() == asked.key()
    # Nobody is asked in batches: whoever evaluates in other ones has the same answers.
    assert replace(asked, batches=replace(asked.batches, batch_size=5, few_widths=64)).key() == asked.key()
    moved = copy.deepcopy(asked.model)
    moved.config._name_or_path = "elsewhere"  # type: ignore[union-attr]
    assert replace(asked, model=moved).key() == asked.key()


def test_another_teacher_gets_a_file_of_its_own(cache: Cache) -> None:
    asked = lesson(HiddenStates(2.0))
    stored(asked, cache)
    stored(another_bit(asked), cache)
    assert len(kept(cache)) == 2


def test_where_there_is_no_room_it_is_asked_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = TOKENS * WIDTH * 4
    small, enough = (Cache(tmp_path / name, bytes_ / 1e9) for name, bytes_ in (("a", size - 1), ("b", size + 200)))
    with caplog.at_level(logging.INFO, logger="hydraprune"):
        teacher, seconds = teacher_of(lesson(HiddenStates(2.0)), small)
    assert isinstance(teacher, GroupedTeacher)
    assert seconds == 0.0
    assert "cache.max_gb" in caplog.text
    assert not small.folder.exists()
    stored(lesson(HiddenStates(2.0)), enough)


@pytest.mark.parametrize(
    ("distiller", "kind"),
    [
        (HiddenStates(1.0, padding=True), OnlineTeacher),  # a padded position's state depends on its batch
        (HiddenStates(1.0, online=True), GroupedTeacher),
        (Logits(0.5, online=True), GroupedTeacher),
    ],
    ids=["padding", "online hidden", "online logits"],
)
def test_who_is_asked_in_every_step_is_not_asked_before(distiller: Distiller, kind: type, cache: Cache) -> None:
    asked = lesson(distiller)
    seen = watch(asked.model)
    teacher, seconds = teacher_of(asked, cache)
    assert type(teacher) is kind
    assert (seconds, seen.examples, kept(cache)) == (0.0, 0, [])


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut in its first bytes": lambda content: content[:4],
    "cut in its header": lambda content: content[:40],
    "cut in its last row": lambda content: content[:-10],
    "text": lambda content: b"something else altogether\n",
    "an archive": lambda content: b"PK\x03\x04" + content[4:],
    "a pickle": lambda content: b"\x80\x04N.",
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_file_that_is_not_whole_is_made_anew(name: str, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    expected = whole(stored(lesson(HiddenStates(2.0)), cache)).clone()
    (file,) = kept(cache)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(SPOILT[name](content))
    assert torch.equal(whole(stored(lesson(HiddenStates(2.0)), cache)), expected)
    assert file.read_bytes() == content
    assert "making it anew" in caplog.text


def test_answers_of_another_shape_are_made_anew(cache: Cache) -> None:
    asked = lesson(HiddenStates(2.0))
    expected = whole(stored(asked, cache)).clone()
    (file,) = kept(cache)
    for foreign in (np.zeros((TOKENS, WIDTH + 1), np.float32), np.zeros((TOKENS, WIDTH), np.float64)):
        file.unlink()
        np.save(file, foreign)
        assert torch.equal(whole(stored(asked, cache)), expected)


def test_two_that_ask_at_once_ask_once(cache: Cache) -> None:
    lessons = [lesson(HiddenStates(2.0)) for _ in range(2)]
    seen = Seen()
    for asked in lessons:
        watch(asked.model, seen)
    ready, said = threading.Barrier(2), [torch.empty(0)] * 2

    def ask(place: int) -> None:
        ready.wait()
        said[place] = whole(stored(lessons[place], Cache(cache.folder, 1.0)))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert seen.examples == len(LENGTHS) + 2
    assert torch.equal(said[0], said[1])
    assert said[0].shape == (TOKENS, WIDTH)


def test_answers_in_use_outlive_their_file(cache: Cache) -> None:
    asked = lesson(HiddenStates(2.0))
    teacher, fresh = stored(asked, cache), Batches(asked.data, 3, shuffle_seed=2)
    expected = [teacher.answers(batch).clone() for batch in fresh.epoch()]
    assert cache.clean() > 0
    assert kept(cache) == []
    assert all(torch.equal(teacher.answers(b), e) for b, e in zip(fresh.epoch(), expected, strict=True))
