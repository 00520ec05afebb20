"""Language modelling: rows of running text, hidden tokens, perplexity, data files, and runs from end to end."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family_helpers import save_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from hydraprune.data.batches import Batches
from hydraprune.data.encoding import encode
from hydraprune.data.examples import Examples
from hydraprune.data.labels import IGNORED
from hydraprune.data.language_modelling import _PIECE, MaskedTextTask, TextTask, _pieces
from hydraprune.data.metric_direction import is_better, is_error
from hydraprune.data.metrics import metric
from hydraprune.data.token_labels import MaskedTokens, NextTokens
from hydraprune.errors import UserError
from hydraprune.models.tiny import TinyDecoder, TinyModel

TINY, DECODER = TinyModel("tiny", 32, 1, 2, 32), TinyDecoder("tiny_decoder", 32, 2, 2, 64)
NEXT, HIDDEN = NextTokens(), MaskedTokens()
TEXTS = st.lists(st.sampled_from(["good", "dull", "plot", "unheardof", "the", "."]), min_size=1, max_size=60)


# Rows ---------------------------------------------------------------------------------------------


@given(TEXTS.map(" ".join), st.integers(4, 20))
@settings(max_examples=40, deadline=None)
def test_rows_are_the_text_without_its_end(text: str, max_length: int) -> None:
    tokenizer = DECODER.tokenizer()
    ids = tokenizer(text)["input_ids"]
    data = encode(tokenizer, Examples([(text,)], [0]), max_length, NEXT)
    found = data.inputs["input_ids"].tolist()
    assert found == ids[: len(found)]
    assert len(found) == (len(ids) // max_length * max_length or len(ids))
    for row in range(len(data)):
        first, end = int(data.offsets[row]), int(data.offsets[row + 1])
        assert data.labels[first:end].tolist() == [*found[first + 1 : end], IGNORED]


@given(TEXTS.map(" ".join), st.floats(0.05, 0.9))
@settings(max_examples=30, deadline=None)
def test_hidden_tokens_have_their_original_as_target(text: str, share: float) -> None:
    tokenizer, head = TINY.tokenizer(), MaskedTokens(share=share)
    data = encode(tokenizer, Examples([(text,)], [0]), 12, head)
    again = encode(tokenizer, Examples([(text,)], [0]), 12, head)
    assert torch.equal(data.inputs["input_ids"], again.inputs["input_ids"])
    ids, targets = data.inputs["input_ids"].long(), data.labels
    whole = torch.where(targets == IGNORED, ids, targets)
    kept = whole[~torch.isin(whole, torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id]))].tolist()
    assert kept == tokenizer(text, add_special_tokens=False)["input_ids"][: len(kept)]
    special = torch.isin(whole, torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id]))
    assert bool((targets[special] == IGNORED).all())


def test_shares_of_hidden_tokens_are_those_of_bert() -> None:
    tokenizer = TINY.tokenizer()
    data = encode(tokenizer, Examples([("the plot is good . " * 4000,)], [0]), 32, HIDDEN)
    ids, targets = data.inputs["input_ids"].long(), data.labels
    hidden = targets != IGNORED
    assert float(hidden.sum() / (len(ids) * 30 / 32)) == pytest.approx(0.15, abs=0.01)
    masked, left = ids[hidden] == tokenizer.mask_token_id, ids[hidden] == targets[hidden]
    assert float(masked.float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float(left.float().mean()) == pytest.approx(0.1, abs=0.02)


@given(st.lists(st.text("ab ", max_size=4), max_size=8))
@settings(deadline=None)
def test_pieces_are_the_joined_texts(texts: list[str]) -> None:
    joined = "|".join(texts)
    assert list(_pieces(texts, "|")) == ([joined] if joined.strip() else [])


def test_long_texts_are_cut_between_texts() -> None:
    texts = ["a" * (_PIECE // 2)] * 5
    pieces = list(_pieces(texts, "\n"))
    assert [len(piece) for piece in pieces] == [_PIECE + 2, _PIECE + 2, _PIECE // 2]
    assert "".join(pieces) == "\n".join(texts)


# Loss and perplexity ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_loss_and_perplexity_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path / kind, kind, AutoModelForCausalLM)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / kind)
    data = encode(tokenizer, Examples([("the plot is good . " * 12,)], [0]), 12, NEXT)
    losses, predictions, references = [], [], []
    for batch in Batches(data, 2).epoch():
        with torch.no_grad():
            logits = batch.outputs(model)
            theirs = model(**batch.inputs, labels=batch.inputs["input_ids"]).loss
        assert torch.allclose(batch.loss(logits), theirs, atol=1e-6)
        losses += [theirs] * len(batch.labels)
        predictions += NEXT.predictions(logits, batch.labels, batch.mask)
        references += NEXT.references(batch.labels)
    scores = metric(("perplexity", "loss", "accuracy"), NEXT).compute(predictions=predictions, references=references)
    assert scores["loss"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(scores["loss"]))
    assert 0 <= scores["accuracy"] <= 1


def test_the_loss_of_hidden_tokens_is_that_of_transformers(tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path / "bert", "bert", AutoModelForMaskedLM)
    data = encode(TINY.tokenizer(), Examples([("the plot is good . " * 12,)], [0]), 12, HIDDEN)
    batch = Batches(data, 3).batch(torch.arange(3))
    expected = model(**batch.inputs, labels=batch.labels).loss
    assert torch.allclose(batch.loss(batch.outputs(model)), expected, atol=1e-6)


def test_lower_perplexity_is_better() -> None:
    assert is_error("perplexity")
    assert is_error("loss_validation_other")
    assert not is_error("f1")
    assert is_better(3.0, 4.0, "perplexity")
    assert not is_better(3.0, 4.0, "accuracy")
    assert is_better(3.0, math.nan, "loss")
    assert not is_better(math.nan, 3.0, "loss")


# Data ---------------------------------------------------------------------------------------------


def task(path: Path | str, **more: Any) -> TextTask:
    keys: dict[str, Any] = {
        "name": "text", "path": str(path), "metrics": ["perplexity"], "max_length": 16, "text": "text",
        "separator": "\n", "validation_share": 0.25,
    }  # fmt: skip
    return TextTask(**{**keys, **more})


def test_the_end_of_a_text_file_is_held_out(tmp_path: Path) -> None:
    lines = [f"line {n}" for n in range(8)]
    lines[2] = ""
    (tmp_path / "a.txt").write_text("\n".join(lines))
    data = task(tmp_path / "a.txt").load()
    assert data.train.texts == [("\n".join(lines[:6]),)]
    assert data.evaluations["validation"].texts == [("line 6\nline 7",)]
    assert data.summary.splits["train"].used == 6
    assert data.summary.digests.keys() == {str(tmp_path / "a.txt")}
    first = task(tmp_path / "a.txt", max_train_examples=2).load()
    assert first.train.texts == [("line 0\nline 1",)]


def test_lines_end_at_line_breaks_alone(tmp_path: Path) -> None:
    lines = [f"line\f{n}\x0bthe\u2028mat\x85" for n in range(8)]
    (tmp_path / "a.txt").write_bytes("\r\n".join(lines).encode())
    assert task(tmp_path / "a.txt").load().train.texts == [("\n".join(lines[:6]),)]
    (tmp_path / "b.txt").write_bytes("café\nthé\n".encode("latin-1"))
    with pytest.raises(UserError, match="line 1 is not UTF-8"):
        task(tmp_path / "b.txt").load()


def test_other_files_and_wrong_ones(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": f"line {n}"}) for n in range(8)))
    assert task(tmp_path / "a.jsonl", separator=" ").load().evaluations["validation"].texts == [("line 6 line 7",)]
    (tmp_path / "b.jsonl").write_text('{"text": 3}\n{"text": 4}')
    with pytest.raises(UserError, match="row 1: text holds 3, which is no text"):
        task(tmp_path / "b.jsonl").load()
    (tmp_path / "c.txt").write_text("\n\n \n\n")
    with pytest.raises(UserError, match="the texts of train are empty"):
        task(tmp_path / "c.txt").load()
    (tmp_path / "d.txt").write_text("one line")
    with pytest.raises(UserError, match=r"there are 1 texts; give task\.validation_path"):
        task(tmp_path / "d.txt").load()
    with pytest.raises(UserError, match=r"task\.masked_share=1.5: must be between 0 and 1"):
        MaskedTextTask(**{**task("x").__dict__, "masked_share": 1.5})


# Runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distill", ["hidden", "logits", "none"])
@pytest.mark.parametrize(
    ("kind", "model", "architecture"),
    [("toy_text", "tiny_decoder", "LlamaForCausalLM"), ("toy_masked_text", "tiny", "BertForMaskedLM")],
)
def test_a_run_models_text(
    kind: str, model: str, architecture: str, distill: str,
    train: Callable[..., Any], hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path,
) -> None:  # fmt: skip
    words = [word for word in small if not word.startswith(("task=", "model="))]
    words += [f"task={kind}", f"model={model}", "task.train_examples=4000", "task.max_length=16"]
    finished = train(*words, f"distill={distill}", "pattern=mixed", "scheduler.frequency=2")
    assert finished.code == 0, finished.err
    (path,) = workplace.glob(f"outputs/{kind}/{model}/mixed/*/report.json")
    report = json.loads(path.read_text())
    assert (report["metric"], report["pattern_ok"]) == ("perplexity", True)
    folder = path.parent / "model"
    assert json.loads((folder / "config.json").read_text())["architectures"] == [architecture]
    lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    ends = [line["eval/perplexity"] for line in lines if "eval/perplexity" in line]
    assert report["best"]["perplexity"] in ends
    if distill != "none":
        return
    given = [word for word in words if word.startswith(("task.", "cache."))]
    scored = hydraprune("eval", str(folder), f"task={kind}", *given, "--predictions", "p.jsonl")
    assert scored.code == 0, scored.err
    assert f"perplexity  {report['final']['perplexity']:.4f}" in scored.out
    first = json.loads(Path("p.jsonl").read_text().splitlines()[0])
    assert first["prediction"].keys() == {"loss", "right"}


def test_a_tied_decoder_stays_tied(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    """Its head reads all rows of the embedding, which therefore is not made smaller while it is trained."""
    save_checkpoint(workplace / "gpt2", "gpt2", AutoModelForCausalLM)
    words = [word for word in small if not word.startswith(("task=", "model="))]
    words += ["task=toy_text", "task.max_length=16", "model.path=gpt2", "task.train_examples=2000"]
    finished = train(*words)
    assert finished.code == 0, finished.err
    (folder,) = workplace.glob("outputs/toy_text/gpt2/4x1/*/model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")


def test_wanda_without_training_on_a_decoder(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    """Each row keeps the weights with the largest |w| x norm of their inputs; layer after layer of the model."""
    words = [word for word in small if not word.startswith(("task=", "model=", "scheduler.", "training.epochs"))]
    words += ["task=toy_text", "task.max_length=16", "model=tiny_decoder", "task.train_examples=2000"]
    finished = train(*words, "pruner=wanda", "pattern=2:4", "pruner.batches=4")
    assert finished.code == 0, finished.err
    (dense,) = workplace.glob("outputs/toy_text/tiny_decoder/dense/*/model")
    (sparse,) = workplace.glob("outputs/toy_text/tiny_decoder/2of4/*/model")
    before, after = (load_file(folder / "model.safetensors") for folder in (dense, sparse))
    name = "model.layers.0.mlp.down_proj.weight"
    kept = (after[name] != 0).view(-1, 4)
    assert bool((kept.sum(1) == 2).all())
    assert torch.equal(after[name], before[name] * (after[name] != 0))
    assert "lm_head.weight" in after
    assert bool((after["lm_head.weight"] != 0).all())


def test_an_encoder_does_not_predict_next_tokens(train: Callable[..., Any], small: tuple[str, ...]) -> None:
    words = [word for word in small if not word.startswith("task=")]
    refused = train(*words, "task=toy_text", "task.max_length=16", "task.train_examples=2000")
    assert refused.code == 2
    assert "reads the tokens that it is to predict" in refused.err


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_small_encoder_does_not_either(kind: str, tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path, kind, AutoModelForCausalLM)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    data = encode(tokenizer, Examples([("the plot is good . " * 4,)], [0]), 16, NEXT)
    with torch.no_grad():
        why = NEXT.misfit_on(model, Batches(data, 1).batch(torch.tensor([0])).inputs)
    assert why is not None
    assert "reads the tokens that it is to predict" in why


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mixtral", "gpt_neox", "opt"])
def test_decoders_do(kind: str, tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path, kind, AutoModelForCausalLM)
    data = encode(TINY.tokenizer(), Examples([("the plot is good . " * 4,)], [0]), 16, NEXT)
    with torch.no_grad():
        assert NEXT.misfit_on(model, Batches(data, 1).batch(torch.tensor([0])).inputs) is None


def test_text_without_predicted_tokens_is_refused(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    (workplace / "train.txt").write_text("the plot is good\n" * 400)
    (workplace / "one.txt").write_text("the")
    words = [word for word in small if not word.startswith(("task", "model=", "scheduler.", "dense."))]
    words += ["task=masked_text", "model=tiny", "pattern=dense", "task.path=train.txt", "task.max_length=16"]
    refused = train(*words, "task.validation_path=one.txt")
    assert refused.code == 2
    assert "the text of validation has 3 tokens, of which none is predicted; give a longer text" in refused.err


@pytest.mark.parametrize(("task", "kind"), [("toy_masked_text", "gpt2"), ("toy_text", "t5")])
def test_a_family_without_such_a_head_is_refused(
    task: str, kind: str, train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    save_checkpoint(workplace / kind, kind)
    words = [word for word in small if not word.startswith(("task=", "model="))]
    refused = train(*words, f"task={task}", "task.max_length=16", f"model.path={kind}")
    assert refused.code == 2
    assert f"transformers has no {kind} model with a head for" in refused.err


def test_a_language_model_without_its_head_is_refused(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    save_checkpoint(workplace / "bert", "bert")
    words = [word for word in small if not word.startswith(("task=", "model="))]
    refused = train(*words, "task=toy_masked_text", "task.max_length=16", "model.path=bert")
    assert refused.code == 2
    assert "weights of a bert language model" in refused.err
