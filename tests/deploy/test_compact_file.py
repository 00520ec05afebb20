"""The compact file of a model: its description, what comes back, its sizes, and files that cannot be used."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compact_helpers import logits_of, prune_blocks, read_by_description, save_sparse
from family_helpers import model_of, save_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hydraprune.deploy import live_blocks, load_compact, read_compact, save_compact
from hydraprune.deploy.compact_file import COMPACT_FILE, CompactTensors, read_compact_file, write_compact_file
from hydraprune.deploy.compact_weight import decode, encode
from hydraprune.errors import UserError

ROOT = Path(__file__).parents[2]
KINDS = ("bert", "roberta", "distilbert", "electra", "mpnet")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a compact file of a small sparse BERT."""
    folder = tmp_path_factory.mktemp("saved")
    save_compact(save_sparse(folder), folder)
    return folder


@pytest.mark.parametrize("kind", [*KINDS, "gpt2"])
def test_the_same_model_comes_back(kind: str, tmp_path: Path) -> None:
    model = save_sparse(tmp_path, kind)
    (tmp_path / "model.safetensors").unlink()
    save_compact(model, tmp_path)
    loaded = load_compact(tmp_path)
    assert type(loaded) is type(model)
    assert not loaded.training
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name].contiguous().view(torch.int32), (tensor + 0.0).view(torch.int32)), name
    assert torch.equal(logits_of(loaded), logits_of(model))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(("kind", "rows"), [("bert", 4), ("distilbert", 8), ("electra", 1)])
def test_a_reader_written_from_the_description_reads_it(kind: str, rows: int, precision: Any, tmp_path: Path) -> None:
    model = save_sparse(tmp_path, kind, rows)
    save_compact(model, tmp_path, precision, "fp16")
    read, ours = read_by_description(tmp_path / COMPACT_FILE), load_compact(tmp_path).state_dict()
    assert read.keys() == {name for name, _ in model.named_parameters()}
    for name, array in read.items():
        assert np.array_equal(array, ours[name].numpy()), name


def test_the_example_of_the_description(tmp_path: Path) -> None:
    weight = torch.tensor([[1.0, 0, 2], [3, 0, 0], [0, 0, 4]])
    text = (ROOT / "docs" / "compact_format.md").read_text(encoding="utf-8")
    values = json.loads(re.search(r"the values are `(.*?)`", text)[1])  # type: ignore[index]
    entry = {"block": 2, "shape": [3, 3]}
    tensors = {"w.bitmap": torch.tensor([37], dtype=torch.uint8), "w.values": torch.tensor(values, dtype=torch.float32)}
    write(tmp_path / "x", tensors, {"w": entry})
    assert torch.equal(decode(read_compact_file(tmp_path / "x").sparse["w"]), weight)


def test_the_python_of_the_description_runs(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "compact_format.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "model-compact").symlink_to(saved)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out.startswith("bert.encoder.layer.0.attention.")


def test_matrices_without_zeros_stay_dense_and_precision_holds_for_every_matrix(tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path, "bert")
    save_compact(model, tmp_path, "bf16", "fp16")
    tensors = read_compact(tmp_path)
    # An embedding table's row of padding is zero, and is worth nothing.
    assert not any("layer" in name for name in tensors.sparse)
    assert tensors.dense["bert.encoder.layer.0.output.dense.weight"].dtype == torch.bfloat16
    assert tensors.dense["bert.embeddings.position_embeddings.weight"].dtype == torch.float16
    assert tensors.dense["bert.encoder.layer.0.output.dense.bias"].dtype == torch.float32
    error = (logits_of(load_compact(tmp_path)) - logits_of(model)).norm() / logits_of(model).norm()
    assert 0 < error < 0.1


def test_sizes_at_the_shape_of_a_minilm(tmp_path: Path) -> None:
    """Two layers with 384 features, 4x1 at 90 %, and a vocabulary in the proportion of twelve layers."""
    sizes = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 30522 // 6}
    model = prune_blocks(model_of("bert", **sizes, max_position_embeddings=512 // 6))
    exact = save_compact(model, tmp_path)
    assert exact.sparse == 12
    assert exact.dense_encoder / exact.encoder >= 9.2
    half = save_compact(model, tmp_path, "bf16", "fp16")
    assert half.dense_encoder / half.encoder >= 17
    assert half.model == (tmp_path / COMPACT_FILE).stat().st_size
    whole = save_compact(model, tmp_path, "fp32", "fp16")
    assert whole.dense_model / whole.model >= 3


def test_live_blocks_of_a_file_make_no_dense_matrix(saved: Path) -> None:
    dense = load_file(saved / "model.safetensors")
    for name, weight in read_compact(saved).sparse.items():
        live = live_blocks(weight)
        assert live.values.numel() < dense[name].numel() / 4
        rows = live.blocks[:, None] * weight.block_rows + torch.arange(weight.block_rows)
        again = torch.zeros(live.shape)
        again[rows, live.columns[:, None]] = live.values
        assert torch.equal(again, dense[name])


@given(st.data())
@settings(max_examples=40)
def test_any_weights_come_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text("ab.é ", min_size=1, max_size=4), unique=True, max_size=4))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    sparse, dense = {}, {}
    for name in names:
        shape = data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
        weight = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.3)
        if data.draw(st.booleans()):
            sparse[name] = weight
        else:
            dense[name] = weight.to(data.draw(st.sampled_from([torch.float32, torch.float16, torch.int64])))
    path = tmp_path_factory.mktemp("any") / "x"
    write_compact_file(CompactTensors({name: encode(weight) for name, weight in sparse.items()}, dense), path)
    read, other = read_compact_file(path), read_by_description(path)
    assert read.sparse.keys() == sparse.keys()
    assert read.dense.keys() == dense.keys()
    for name, weight in sparse.items():
        assert torch.equal(decode(read.sparse[name]), weight)
        assert np.array_equal(other[name], weight.numpy())
    for name, weight in dense.items():
        assert torch.equal(read.dense[name], weight)
        assert np.array_equal(other[name], weight.numpy())


def write(path: Path, tensors: dict[str, Tensor], weights: Any, **changes: Any) -> None:
    """A file in the format, with a right checksum unless `weights` are no list of weights."""
    from hydraprune.deploy.compact_file import KEY, VERSION, _digest

    try:
        checksum = _digest({name: (each["shape"], each["block"]) for name, each in weights.items()}, tensors)
    except (AttributeError, KeyError):
        checksum = "?"
    description = {"version": VERSION, "sha256": checksum, "weights": weights, **changes}
    save_file(tensors, path, {KEY: json.dumps(description)})


BITMAP, VALUES = torch.tensor([37], dtype=torch.uint8), torch.ones(3, 1)
GOOD = {"w.bitmap": BITMAP, "w.values": VALUES}
ENTRY = {"block": 1, "shape": [2, 3]}
LONG = {"w": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}


def entry(*shape: Any) -> dict[str, Any]:
    return {"w": {"block": 1, "shape": shape}}


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "text": (lambda path: path.write_text("weights"), "cannot be read"),
    "a folder": (lambda path: path.mkdir(), "cannot be read"),
    "a header of 8 EB": (lambda path: path.write_bytes(struct.pack("<Q", 2**63) + b"{}"), "cannot be read"),
    "a tensor beyond the end": (
        lambda path: path.write_bytes(header(LONG)),
        "cannot be read",
    ),
    "another safetensors file": (lambda path: save_file(GOOD, path), "is no compact file"),
    "a later version": (lambda path: write(path, GOOD, {"w": ENTRY}, version=2), "of version 2"),
    "a wrong checksum": (lambda path: write(path, GOOD, {"w": ENTRY}, sha256="00"), "its checksum is wrong"),
    "no list": (lambda path: save_file(GOOD, path, {"hydraprune-compact": '{"version": 1}'}), "list of weights"),
    "a list that is a number": (lambda path: write(path, GOOD, 3), "list of weights"),
    "no JSON": (lambda path: save_file(GOOD, path, {"hydraprune-compact": "{"}), "description cannot be read"),
    "another JSON": (lambda path: save_file(GOOD, path, {"hydraprune-compact": "[1]"}), "description cannot be read"),
    "deep JSON": (
        lambda path: save_file(GOOD, path, {"hydraprune-compact": "[" * 10**5}),
        "description cannot be read",
    ),
    "no shape": (lambda path: write(path, GOOD, {"w": {"block": 1}}), "list of weights"),
    "a shape of words": (
        lambda path: write(path, GOOD, entry("2", "3")),
        "no shape and block",
    ),
    "a shape of three": (lambda path: write(path, GOOD, entry(2, 3, 1)), "no shape and block"),
    "a weight without tensors": (lambda path: write(path, GOOD, {"v": ENTRY}), "should hold v.bitmap"),
    "a weight of both kinds": (
        lambda path: write(path, {**GOOD, "w": VALUES.clone()}, {"w": ENTRY}),
        "should hold w.bitmap",
    ),
    "an immense shape": (
        lambda path: write(path, GOOD, entry(10**15, 10**15)),
        "w has a bitmap",
    ),
    "another count": (lambda path: write(path, {**GOOD, "w.values": VALUES[:2]}, {"w": ENTRY}), "3 live blocks"),
}


def header(entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, reason = BAD_FILES[case]
    make(tmp_path / COMPACT_FILE)
    with pytest.raises(UserError, match=reason) as raised:
        read_compact_file(tmp_path / COMPACT_FILE)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


@given(data=st.data())
@settings(max_examples=60)
def test_a_changed_or_cut_file_is_refused(saved: Path, data: st.DataObject) -> None:
    content = bytearray((saved / COMPACT_FILE).read_bytes())
    length = 8 + struct.unpack("<Q", content[:8])[0]
    if data.draw(st.booleans()):
        place = data.draw(st.one_of(st.integers(0, length - 1), st.integers(length, len(content) - 1)))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    changed = saved.parent / "changed"
    changed.mkdir(exist_ok=True)
    (changed / COMPACT_FILE).write_bytes(content)
    try:
        read = read_compact_file(changed / COMPACT_FILE)
    except UserError:
        return
    # White space in the header's padding means nothing.
    good = read_compact_file(saved / COMPACT_FILE)
    assert read.dense.keys() == good.dense.keys()
    assert all(torch.equal(tensor, good.dense[name]) for name, tensor in read.dense.items())
    assert all(torch.equal(weight.values, good.sparse[name].values) for name, weight in read.sparse.items())


@pytest.mark.usefixtures("bad_input")
def test_a_file_of_another_model_is_refused(saved: Path, tmp_path: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (tmp_path / COMPACT_FILE).write_bytes((saved / COMPACT_FILE).read_bytes())
    for changes, words in (
        ({"intermediate_size": 72}, r"by config.json"),
        ({"num_hidden_layers": 1}, "missing by config.json"),
        ({"num_hidden_layers": 3}, "missing in it"),
        ({"vocab_size": 10**9}, r"\[1000000000, 32\] by config.json"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserError, match=words):
            load_compact(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json"):
        load_compact(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_compact(tmp_path / "nowhere")


def test_names_that_the_format_uses_are_refused(tmp_path: Path) -> None:
    model = nn.Module()
    model.values = nn.Parameter(torch.zeros(2))
    outer = nn.Module()
    outer.w = model
    with pytest.raises(ValueError, match=r"w\.values"):
        save_compact(outer, tmp_path)


def test_values_beyond_half_precision_are_refused_by_name(tmp_path: Path) -> None:
    model = model_of("bert")
    model.classifier.weight.data[0, 0] = 1e6  # type: ignore[union-attr,index]
    with pytest.raises(ValueError, match=r"classifier\.weight holds values beyond the range of fp16"):
        save_compact(model, tmp_path, "fp16")


def test_the_same_model_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_compact(load_compact(saved), tmp_path)
    assert (tmp_path / COMPACT_FILE).read_bytes() == (saved / COMPACT_FILE).read_bytes()
