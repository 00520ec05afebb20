"""The teacher cache: outputs are computed once, equal those of an online teacher, and have the right key."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import encoded_of, random_ids
from model_helpers import small_model
from torch import Tensor, nn

from hydraprune.data.batches import Batches, Encoded
from hydraprune.runs.setup import accelerator_for
from hydraprune.training.distillation import Distiller, HiddenStates, Logits
from hydraprune.training.settings import Settings
from hydraprune.training.teacher_cache import TeacherSpec, make_teacher
from hydraprune.training.teachers import FixedShapeTeacher, OnlineTeacher, StoredTeacher
from hydraprune.utils.cache import Cache

LENGTHS = [3, 17, 5, 9, 2, 11, 4, 26, 3, 8, 6]
TOKENS = sum(LENGTHS)
WIDTH = 16
DISTILLERS: list[Distiller] = [HiddenStates(2.0), Logits(0.5)]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return small_model("bert", WIDTH, 2, 2, 32, 50, max_position_embeddings=32, num_labels=3)


def data() -> Encoded:
    types = random_ids(TOKENS, 0, 2, seed=2)
    return encoded_of(LENGTHS, random_ids(TOKENS, 1, 50, seed=1), torch.arange(len(LENGTHS)) % 3, token_type_ids=types)


def spec_of(distiller: Distiller, model: nn.Module | None = None) -> TeacherSpec:
    accelerator = accelerator_for(Settings(epochs=1, batch_size=4, device="cpu"))
    return TeacherSpec(model or network(), distiller, Batches(data(), 4), accelerator, "fp32")


def with_data(spec: TeacherSpec, other: Encoded) -> TeacherSpec:
    return replace(spec, batches=replace(spec.batches, data=other))


@dataclass
class Seen:
    """Counts the examples that a model was run on."""

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
    return torch.from_numpy(np.array(teacher.rows))


def stored(spec: TeacherSpec, cache: Cache) -> StoredTeacher:
    teacher, _ = make_teacher(spec, cache)
    assert isinstance(teacher, StoredTeacher)
    return teacher


def files_of(cache: Cache) -> list[Path]:
    return [file for file in cache.files() if file.parent.name == "answers"]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 1.0)


@pytest.mark.parametrize("distiller", DISTILLERS, ids=lambda d: type(d).__name__)
def test_stored_outputs_equal_those_of_an_online_teacher(distiller: Distiller, cache: Cache) -> None:
    """Up to rounding, since an online teacher runs on the batch as it is."""
    spec = spec_of(distiller)
    student, teacher = network(seed=1).eval(), stored(spec, cache)
    online = OnlineTeacher(network(), distiller)
    for batch in Batches(spec.data, 3, shuffle_seed=5).epoch():
        ours, theirs = teacher.outputs(batch), online.outputs(batch)
        assert ours.shape == theirs.shape
        real = batch.inputs["attention_mask"].bool() if distiller.per_token else torch.ones(len(ours), dtype=torch.bool)
        assert torch.allclose(ours[real], theirs[real], rtol=0, atol=1e-5)
        losses = [float(distiller.loss(student, batch, given).detach()) for given in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=0, abs=1e-6)
        assert bool(ours.isfinite().all())


def test_a_row_per_token_or_per_example_is_stored(cache: Cache) -> None:
    for distiller, shape in zip(DISTILLERS, [(TOKENS, WIDTH), (len(LENGTHS), 3)], strict=True):
        spec = spec_of(distiller)
        stored(spec, cache)
        file = cache.folder / "answers" / f"{spec.key()}.npy"
        assert np.load(file).shape == shape
        assert spec.rows == shape[0]
    assert len(files_of(cache)) == 2


@pytest.mark.parametrize("distiller", DISTILLERS, ids=lambda d: type(d).__name__)
def test_outputs_are_computed_once(distiller: Distiller, cache: Cache) -> None:
    seen = []
    for _ in range(3):
        spec = spec_of(distiller)
        seen.append(watch(spec.model))
        stored(spec, cache)
        files = [(file, file.read_bytes()) for file in files_of(cache)]
        assert len(files) == 1
    # One example gives the number of features; the first run alone computes all of them.
    assert [s.examples for s in seen] == [1 + len(LENGTHS), 1, 1]


@pytest.mark.parametrize("at", [200, -1, -5])
def test_damaged_outputs_are_computed_again(at: int, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    """A flipped bit would give other weights without a word."""
    stored(spec_of(HiddenStates(2.0)), cache)
    (file,) = files_of(cache)
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[at] ^= 1
    file.write_bytes(damaged)
    stored(spec_of(HiddenStates(2.0)), cache)
    assert file.read_bytes() == whole
    assert "damaged: wrong checksum" in caplog.text


def another_bit(spec: TeacherSpec) -> TeacherSpec:
    model = copy.deepcopy(spec.model)
    weight = model.get_parameter("bert.encoder.layer.1.output.dense.weight")
    weight.data.view(torch.int32)[0, 0] ^= 1
    return replace(spec, model=model)


def another_token(spec: TeacherSpec, key: str = "input_ids") -> TeacherSpec:
    inputs = {name: values.clone() for name, values in spec.data.inputs.items()}
    inputs[key][7] ^= 1
    return with_data(spec, replace(spec.data, inputs=inputs))


def another_cut(spec: TeacherSpec) -> TeacherSpec:
    offsets = spec.data.offsets.clone()
    offsets[3] += 1
    return with_data(spec, replace(spec.data, offsets=offsets))


def other_types(spec: TeacherSpec) -> TeacherSpec:
    return another_token(spec, "token_type_ids")


def another_activation(spec: TeacherSpec) -> TeacherSpec:
    model = copy.deepcopy(spec.model)
    model.config.hidden_act = "relu"  # type: ignore[union-attr]
    return replace(spec, model=model)


OTHERS: dict[str, Callable[[TeacherSpec], TeacherSpec]] = {
    "one bit of a weight": another_bit,
    "a token": another_token,
    "a token's type": other_types,
    "where an example ends": another_cut,
    "the model's config": another_activation,
    "precision": lambda spec: replace(spec, precision="bf16"),
    "the distiller": lambda spec: replace(spec, distiller=Logits(0.5)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_everything_that_changes_outputs_changes_the_key(name: str) -> None:
    spec = spec_of(HiddenStates(2.0))
    assert OTHERS[name](spec).key() != spec.key()


def test_nothing_else_changes_the_key() -> None:
    spec = spec_of(HiddenStates(2.0))
    assert spec_of(HiddenStates(2.0)).key() == spec.key()
    assert replace(spec, distiller=HiddenStates(5.0)).key() == spec.key()
    assert with_data(spec, replace(spec.data, labels=spec.data.labels + 1)).key() == spec.key()
    # On a CPU the batch size of evaluations does not matter, since the shapes are fixed.
    assert replace(spec, batches=replace(spec.batches, batch_size=5, few_widths=64)).key() == spec.key()
    moved = copy.deepcopy(spec.model)
    moved.config._name_or_path = "elsewhere"  # type: ignore[union-attr]
    assert replace(spec, model=moved).key() == spec.key()


def test_another_teacher_has_its_own_file(cache: Cache) -> None:
    spec = spec_of(HiddenStates(2.0))
    stored(spec, cache)
    stored(another_bit(spec), cache)
    assert len(files_of(cache)) == 2


def test_a_teacher_runs_online_if_its_outputs_exceed_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = TOKENS * WIDTH * 4
    small, enough = (Cache(tmp_path / name, bytes_ / 1e9) for name, bytes_ in (("a", size - 1), ("b", size + 200)))
    with caplog.at_level(logging.INFO, logger="hydraprune"):
        teacher, seconds = make_teacher(spec_of(HiddenStates(2.0)), small)
    assert isinstance(teacher, FixedShapeTeacher)
    assert seconds == 0.0
    assert "cache.max_gb" in caplog.text
    assert not small.folder.exists()
    stored(spec_of(HiddenStates(2.0)), enough)


@pytest.mark.parametrize(
    ("distiller", "kind"),
    [
        (HiddenStates(1.0, padding=True), OnlineTeacher),  # the hidden state of a padded position depends on its batch
        (HiddenStates(1.0, online=True), FixedShapeTeacher),
        (Logits(0.5, online=True), FixedShapeTeacher),
    ],
    ids=["padding", "online hidden", "online logits"],
)
def test_an_online_teacher_stores_nothing(distiller: Distiller, kind: type, cache: Cache) -> None:
    spec = spec_of(distiller)
    seen = watch(spec.model)
    teacher, seconds = make_teacher(spec, cache)
    assert type(teacher) is kind
    assert (seconds, seen.examples, files_of(cache)) == (0.0, 0, [])


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut in its first bytes": lambda content: content[:4],
    "cut in its header": lambda content: content[:40],
    "cut in its last row": lambda content: content[:-10],
    "text": lambda content: b"something else altogether\n",
    "an archive": lambda content: b"PK\x03\x04" + content[4:],
    "a pickle": lambda content: b"\x80\x04N.",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_computed_again(name: str, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    expected = whole(stored(spec_of(HiddenStates(2.0)), cache)).clone()
    (file,) = files_of(cache)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(DAMAGED[name](content))
    assert torch.equal(whole(stored(spec_of(HiddenStates(2.0)), cache)), expected)
    assert file.read_bytes() == content
    assert "computing it again" in caplog.text


def test_a_file_of_another_shape_is_computed_again(cache: Cache) -> None:
    spec = spec_of(HiddenStates(2.0))
    expected = whole(stored(spec, cache)).clone()
    (file,) = files_of(cache)
    for foreign in (np.zeros((TOKENS, WIDTH + 1), np.float32), np.zeros((TOKENS, WIDTH), np.float64)):
        file.unlink()
        np.save(file, foreign)
        assert torch.equal(whole(stored(spec, cache)), expected)


def test_two_concurrent_runs_compute_outputs_once(cache: Cache) -> None:
    specs = [spec_of(HiddenStates(2.0)) for _ in range(2)]
    seen = Seen()
    for spec in specs:
        watch(spec.model, seen)
    ready, found = threading.Barrier(2), [torch.empty(0)] * 2

    def fetch(index: int) -> None:
        ready.wait()
        found[index] = whole(stored(specs[index], Cache(cache.folder, 1.0)))

    threads = [threading.Thread(target=fetch, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert seen.examples == len(LENGTHS) + 2
    assert torch.equal(found[0], found[1])
    assert found[0].shape == (TOKENS, WIDTH)


def test_outputs_in_use_outlive_their_file(cache: Cache) -> None:
    spec = spec_of(HiddenStates(2.0))
    teacher, fresh = stored(spec, cache), Batches(spec.data, 3, shuffle_seed=2)
    expected = [teacher.outputs(batch).clone() for batch in fresh.epoch()]
    assert cache.clean() > 0
    assert files_of(cache) == []
    assert all(torch.equal(teacher.outputs(b), e) for b, e in zip(fresh.epoch(), expected, strict=True))
