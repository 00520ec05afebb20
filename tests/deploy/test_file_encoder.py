"""Models accelerated straight from their files: the same bits as from the loaded model, and files that change."""

from __future__ import annotations

import copy
import importlib
import json
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family_helpers import SIZES
from kernel_helpers import kernels, make_sparse
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from hydraprune.deploy import accelerate, save_compact
from hydraprune.deploy.compact_file import COMPACT_FILE
from hydraprune.deploy.file_table import FileTableEncoder
from hydraprune.errors import UserError
from hydraprune.kernels.packing import Precision
from hydraprune.models.tiny import TinyModel

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet")
WORDS, WEIGHTS = 300, "model.safetensors"
NAME = "bert.embeddings.word_embeddings.weight"
module = importlib.import_module("hydraprune.deploy.acceleration")


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels()
    # Where it has tiles, bf16 is measured with the whole model.
    monkeypatch.setattr(module, "multiplies_tiles", lambda: False)


def save(folder: Path, kind: str = "bert", head: Any = AutoModelForSequenceClassification, **more: Any) -> Any:
    """Save a sparse model with a tokenizer; returns it. `more` are arguments of `save_pretrained`."""
    torch.manual_seed(0)
    sizes = SIZES.get(kind, SIZES["roberta"])
    config = AutoConfig.for_model(kind, vocab_size=WORDS, **{**sizes, **more.pop("fields", {})})
    model = make_sparse(head.from_config(config).eval())
    model.to(more.pop("dtype", torch.float32)).save_pretrained(folder, **more)  # type: ignore[operator]
    TinyModel("tiny", 32, 1, 2, 32).tokenizer().save_pretrained(folder)
    return model


def inputs(seed: int = 0) -> dict[str, Tensor]:
    mask = (torch.arange(29) < torch.tensor([1, 18, 29])[:, None]).long()
    ids = torch.randint(2, WORDS, mask.shape, generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids * mask + 1 - mask, "attention_mask": mask}


def fast_of(folder: Path, precision: Precision = "fp32") -> Any:
    return accelerate(folder, precision)


def usual(folder: Path, precision: Precision = "fp32") -> Any:
    """The model accelerated after it was loaded as a whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "accelerate_file", lambda *_: None)
        return accelerate(folder, precision)


def encoder_of(fast: Any) -> Any:
    return getattr(fast, fast.base_model_prefix, fast).encoder


def first(model: Any, given: dict[str, Tensor]) -> Tensor:
    """The first output of a model where the mask keeps a token."""
    output: Tensor = model(**given)[0]
    return output[given["attention_mask"].bool()] if output.shape[:2] == given["input_ids"].shape else output


def assert_same(folder: Path, precision: Precision = "fp32") -> None:
    fast, wanted = fast_of(folder, precision), usual(folder, precision)
    assert isinstance(encoder_of(fast), FileTableEncoder)
    assert fast.acceleration.way == "fused"
    assert fast.acceleration == wanted.acceleration
    assert type(fast) is type(wanted)
    assert not any(each.training for each in fast.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    # A model that is made of a compact file is called `None` by transformers.
    assert {**wanted.config.to_dict(), "_name_or_path": str(folder)} == fast.config.to_dict()
    assert fast.name_or_path == str(folder)
    assert fast.state_dict().keys() == wanted.state_dict().keys()
    assert all(torch.equal(tensor, wanted.state_dict()[name]) for name, tensor in fast.state_dict().items())
    for seed in range(2):
        with torch.inference_mode():
            assert torch.equal(first(fast, inputs(seed)), first(wanted, inputs(seed)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_bits_are_those_of_the_loaded_model(kind: str, precision: Precision, tmp_path: Path) -> None:
    save(tmp_path, kind)
    assert_same(tmp_path, precision)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torchs_default_type_changes_nothing(dtype: torch.dtype, tmp_path: Path) -> None:
    """The compiled code writes single precision into what it is given, whatever that is."""
    save(tmp_path)
    fast = fast_of(tmp_path)
    wanted, hidden = first(fast, inputs()), first(fast.bert, inputs())
    try:
        torch.set_default_dtype(dtype)
        for other in (fast, fast_of(tmp_path), usual(tmp_path)):
            assert torch.equal(first(other, inputs()), wanted)
            assert torch.equal(first(other.bert, inputs()), hidden)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_files_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    save(tmp_path, dtype=dtype)
    assert_same(tmp_path)


@pytest.mark.parametrize("head", [AutoModel, AutoModelForTokenClassification, AutoModelForQuestionAnswering])
def test_other_heads(head: Any, tmp_path: Path) -> None:
    save(tmp_path, head=head)
    assert_same(tmp_path)


def test_several_files(tmp_path: Path) -> None:
    save(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same(tmp_path)


def test_buffers_of_older_versions(tmp_path: Path) -> None:
    save(tmp_path)
    change(tmp_path, lambda weights: weights.update({"bert.embeddings.position_ids": torch.arange(9)[None]}))
    assert_same(tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("kind", "embeddings"), [("bert", "fp32"), ("electra", "fp16"), ("distilbert", "bf16")])
def test_compact_files(kind: str, precision: Any, embeddings: Any, tmp_path: Path) -> None:
    save_compact(save(tmp_path, kind), tmp_path, precision, embeddings)
    (tmp_path / WEIGHTS).unlink()
    assert_same(tmp_path)
    assert_same(tmp_path, "bf16")


def test_a_table_that_is_stored_without_its_zeros(tmp_path: Path) -> None:
    model = save(tmp_path)
    model.bert.embeddings.word_embeddings.weight.data[5:] = 0
    save_compact(model, tmp_path)
    fast = fast_of(tmp_path)
    assert not isinstance(encoder_of(fast), FileTableEncoder)
    assert encoder_of(fast).weights.embedding.word.count_nonzero() > 0
    assert torch.equal(first(fast, inputs()), first(usual(tmp_path), inputs()))


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Save the weights of a folder with a change."""
    weights = load_file(folder / WEIGHTS)
    edit(weights)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def rename(weights: dict[str, Tensor]) -> None:
    weights["bert.embeddings.LayerNorm.gamma"] = weights.pop("bert.embeddings.LayerNorm.weight")


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


LOADED_AS_A_WHOLE: dict[str, Callable[[Path], object]] = {
    "names of older versions": lambda folder: change(folder, rename),
    "more weights than the model has": lambda folder: change(folder, lambda w: w.update(other=torch.ones(2))),
    "a pickle": as_pickle,
}


@pytest.mark.parametrize("case", LOADED_AS_A_WHOLE)
def test_others_are_loaded_as_a_whole(case: str, tmp_path: Path) -> None:
    model = save(tmp_path)
    LOADED_AS_A_WHOLE[case](tmp_path)
    fast = fast_of(tmp_path)
    assert not isinstance(encoder_of(fast), FileTableEncoder)
    with torch.no_grad():
        assert torch.allclose(first(fast, inputs()), first(model, inputs()), atol=1e-4)


def test_a_config_without_a_class_is_that_of_a_classifier(tmp_path: Path) -> None:
    model, file = save(tmp_path), tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "architectures": [None]}))
    with torch.no_grad():
        assert torch.allclose(first(fast_of(tmp_path), inputs()), first(model, inputs()), atol=1e-4)


def test_tied_weights_are_loaded_as_a_whole(tmp_path: Path) -> None:
    model = save(tmp_path, head=AutoModelForMaskedLM)
    fast = fast_of(tmp_path)
    assert not isinstance(encoder_of(fast), FileTableEncoder)
    with torch.no_grad():
        assert torch.allclose(first(fast, inputs()), first(model, inputs()), atol=1e-4)


def test_outputs_that_differ_are_looked_at_with_the_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path)
    monkeypatch.setattr("hydraprune.deploy.file_encoder.other_outputs", lambda *_: "the outputs differ")
    assert not isinstance(encoder_of(fast_of(tmp_path)), FileTableEncoder)


def set_value(value: float, name: str) -> Callable[[Path], None]:
    def edit(weights: dict[str, Tensor]) -> None:
        weights[name].view(-1)[7] = value

    return lambda folder: change(folder, edit)


QUERY = "bert.encoder.layer.1.attention.self.query.weight"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing weight": (lambda folder: change(folder, lambda w: w.pop(QUERY)), f"{QUERY} among them"),
    "a missing head": (lambda folder: change(folder, lambda w: w.pop("classifier.bias")), "classifier.bias"),
    "another shape": (lambda folder: change(folder, lambda w: w.update({QUERY: torch.ones(8, 8)})), r"is \[8, 8\] in"),
    "integers": (lambda folder: change(folder, lambda w: w.update({QUERY: w[QUERY].to(torch.int8)})), "stored as I8"),
    "NaN in a layer": (set_value(float("nan"), QUERY), f"NaN or infinity, {QUERY}"),
    "NaN in a bias": (set_value(float("nan"), QUERY.replace("weight", "bias")), "NaN or infinity"),
    "infinity in the table of words": (set_value(float("inf"), NAME), f"NaN or infinity, {NAME}"),
    "half a file": (lambda folder: os.truncate(folder / WEIGHTS, 5000), "cannot be loaded"),
    "an empty file": (lambda folder: os.truncate(folder / WEIGHTS, 0), "cannot be loaded"),
    "a file of text": (lambda folder: (folder / WEIGHTS).write_text("weights" * 99), "cannot be loaded"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_cannot_be_used_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    save(tmp_path)
    edit, reason = REFUSED[case]
    edit(tmp_path)
    with pytest.raises(UserError, match=reason) as raised:
        fast_of(tmp_path)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=reason):
        usual(tmp_path)


def test_a_compact_file_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    save_compact(save(tmp_path), tmp_path)
    content = bytearray((tmp_path / COMPACT_FILE).read_bytes())
    content[-5] ^= 1
    (tmp_path / COMPACT_FILE).write_bytes(content)
    with pytest.raises(UserError, match="is damaged: its checksum is wrong"):
        fast_of(tmp_path)


@pytest.fixture(params=[WEIGHTS, COMPACT_FILE])
def used(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """A model of which one batch was computed, and its file."""
    model = save(tmp_path)
    if request.param == COMPACT_FILE:
        save_compact(model, tmp_path, "bf16", "fp16")
    fast = fast_of(tmp_path)
    first(fast, inputs())
    return fast, tmp_path / request.param


def test_a_file_that_is_replaced_or_removed_changes_nothing(used: tuple[Any, Path]) -> None:
    fast, file = used
    loaded = usual(file.parent)
    wanted = [first(loaded, inputs(seed)) for seed in (1, 2)]
    if file.name == WEIGHTS:
        change(file.parent, lambda weights: weights[NAME].zero_())  # safetensors puts another file in its place
    else:
        (file.parent / "new").write_bytes(b"another file")
        os.replace(file.parent / "new", file)
    assert torch.equal(first(fast, inputs(1)), wanted[0])
    shutil.rmtree(file.parent)
    assert torch.equal(first(fast, inputs(2)), wanted[1])


@pytest.mark.parametrize("size", [0, 3000, None])
def test_a_file_that_is_written_into_is_noticed(used: tuple[Any, Path], size: int | None) -> None:
    fast, file = used
    known = first(fast, inputs())
    with file.open("r+b") as opened:
        if size is None:
            opened.seek(-4096, os.SEEK_END)
            opened.write(b"\0" * 4096)
        else:
            opened.truncate(size)
    os.utime(file, (1, 1))  # clocks of some file systems are coarse
    assert torch.equal(first(fast, inputs()), known)
    with pytest.raises(UserError, match=r"was written into since the model was loaded; load|cannot be read any more"):
        first(fast, inputs(1))
    with pytest.raises(UserError, match=r"was written into since|cannot be read any more"):
        copy.deepcopy(fast)


def test_copies_do_not_need_the_file(used: tuple[Any, Path]) -> None:
    fast, file = used
    wanted = first(usual(file.parent), inputs(1))
    copies = [copy.deepcopy(fast), pickle.loads(pickle.dumps(encoder_of(fast)))]
    os.truncate(file, 100)
    assert torch.equal(first(copies[0], inputs(1)), wanted)
    given = inputs(1)
    assert torch.equal(
        copies[1](given["input_ids"], None, given["attention_mask"]),
        encoder_of(copies[0])(given["input_ids"], None, given["attention_mask"]),
    )


def test_only_the_rows_of_words_that_occurred_are_read(tmp_path: Path) -> None:
    save(tmp_path)
    fast = fast_of(tmp_path)
    word = encoder_of(fast).weights.embedding.word
    ids = torch.tensor([[200, 7, 201]])
    before = set(word.any(1).nonzero().flatten().tolist())
    fast(ids)
    assert set(word.any(1).nonzero().flatten().tolist()) == {*before, 200, 201}
    assert before <= set(range(24))  # of the trial
    assert torch.equal(word[200], load_file(tmp_path / WEIGHTS)[NAME][200])


def test_ids_out_of_range_are_refused_as_ever(tmp_path: Path) -> None:
    save(tmp_path)
    fast = fast_of(tmp_path)
    for wrong in (WORDS, -1, 2**40):
        with pytest.raises(ValueError, match="an input id is not in the vocabulary"):
            fast(torch.tensor([[3, wrong]]))
    with pytest.raises(ValueError, match="are integers, not torch"):
        fast(torch.ones(1, 2))
    assert encoder_of(fast)(torch.ones(2, 0, dtype=torch.long)).shape == (2, 0, 32)


def test_threads_read_the_same_rows_at_once(tmp_path: Path) -> None:
    save(tmp_path)
    fast, wanted = fast_of(tmp_path), first(usual(tmp_path), inputs(1))
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(first(fast, inputs(1)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(torch.equal(each, wanted) for each in found)


def test_memory_that_moves_is_followed(tmp_path: Path) -> None:
    save(tmp_path)
    fast, wanted = fast_of(tmp_path), first(usual(tmp_path), inputs(1))
    first(fast, inputs())
    encoder_of(fast).weights.embedding.word.share_memory_()
    assert torch.equal(first(fast, inputs(1)), wanted)


@pytest.mark.parametrize("fields", [{"num_hidden_layers": 0}, {"num_hidden_layers": 1}, {"num_hidden_layers": 11}])
def test_any_number_of_layers(fields: dict[str, int], tmp_path: Path) -> None:
    model = save(tmp_path, fields=fields)
    fast = fast_of(tmp_path)
    with torch.no_grad():
        assert torch.allclose(first(fast, inputs()), first(model, inputs()), atol=1e-4)
    if fields["num_hidden_layers"]:
        assert_same(tmp_path)


def test_dense_and_empty_layers(tmp_path: Path) -> None:
    model = save(tmp_path)
    inside: nn.Module = model.bert.encoder.layer[1]
    with torch.no_grad():
        inside.output.dense.weight.normal_()  # type: ignore[union-attr,operator]
        inside.intermediate.dense.weight.zero_()  # type: ignore[union-attr,operator]
        inside.attention.self.key.weight[8:] = 0  # type: ignore[union-attr,index,operator]
    model.save_pretrained(tmp_path)
    assert_same(tmp_path)
    save_compact(model, tmp_path)
    assert_same(tmp_path)
