"""The trial batch: models, teachers and losses that do not fit are refused before training; padding is compared."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from data_helpers import JSON
from family_helpers import SIZES, save_checkpoint

from hydraprune.data.examples import Examples, Labels, TaskData
from hydraprune.errors import UserError
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.runs.model_loading import load_fine_tuned, load_pretrained
from hydraprune.runs.trial_batch import trial_batch, try_out
from hydraprune.training.distillation import Distiller, HiddenStates, Logits, NoDistillation

TWO = Labels(("no", "yes"))
TEXTS = [("the film was good and the food was bad " * 9,), ("good food",), ("bad",)]
DATA = TaskData(Examples(TEXTS, [0, 1, 0]), {"validation": Examples(TEXTS, [0, 1, 0])}, TWO)


def tried(folder: Path, kind: str, distiller: Distiller, max_length: int = 64, **fields: object) -> None:
    save_checkpoint(folder, kind, **fields)
    source = PretrainedModel("mine", str(folder))
    tokenizer = source.tokenizer()
    model = load_pretrained(source, TWO, tokenizer)
    try_out(model, model, distiller, trial_batch(DATA, tokenizer, max_length), ("model", kind))
    assert model.training is False
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("distiller", [NoDistillation(), Logits(), HiddenStates(1.0)], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("kind", sorted(SIZES))
def test_a_loss_that_a_family_cannot_compute_is_refused(
    kind: str, distiller: Distiller, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if isinstance(distiller, HiddenStates) and kind in ("t5", "longformer"):
        # One needs a decoder's input, the other another attention than inside the classifier.
        with pytest.raises(UserError, match=r"distill: .* alone .*use distill=logits"):
            tried(tmp_path, kind, distiller)
        return
    with caplog.at_level(logging.WARNING):
        tried(tmp_path, kind, distiller)
    # XLNet's head reads the last position, which is padding in this tokenizer.
    assert ("depend on the padding" in caplog.text) == (kind == "xlnet")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "gpt_neox"])
def test_a_decoder_uses_the_padding_token_of_its_tokenizer(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        tried(tmp_path, kind, NoDistillation(), pad_token_id=7)
    assert caplog.text == ""
    source = PretrainedModel("mine", str(tmp_path))
    tokenizer = source.tokenizer()
    model = load_fine_tuned(source, TWO, tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0  # type: ignore[union-attr]
    # Loaded as it is, its score of a text depends on the batch.
    try_out(source.load(), model, NoDistillation(), trial_batch(DATA, tokenizer, 64), ("model", kind))
    assert "depend on the padding" in caplog.text


def test_a_model_that_counts_positions_from_its_padding_keeps_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "roberta", pad_token_id=1)
    source = PretrainedModel("mine", str(tmp_path))
    assert load_pretrained(source, TWO, source.tokenizer()).config.pad_token_id == 1  # type: ignore[union-attr]


def test_a_text_that_is_too_long_for_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model=bert: cannot be computed on a text of the task \(64 tokens\)"):
        tried(tmp_path, "bert", NoDistillation(), max_position_embeddings=40)


class Broken(NoDistillation):
    def loss(self, *_: object) -> torch.Tensor:
        raise KeyError("logits")


def test_a_loss_of_the_user_that_fails_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"distill: Broken cannot be computed: KeyError"):
        tried(tmp_path, "bert", Broken())


def test_the_longest_and_the_shortest_text_are_tried(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "bert")
    batches = trial_batch(DATA, PretrainedModel("mine", str(tmp_path)).tokenizer(), 64)
    assert batches.data.lengths.tolist() == [64, 5]


@pytest.mark.parametrize("words", [["distill=hidden"], ["distill=hidden", "dense.source={model}"]])
def test_a_run_is_refused_before_its_dense_run(
    words: list[str], train: object, workplace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = tmp_path_factory.mktemp("t5")
    save_checkpoint(model, "t5")
    (workplace / "train.jsonl").write_text(JSON)
    finished = train(  # type: ignore[operator]
        f"model.path={model}", "task=file", "task.path=train.jsonl", "task.text=[text]", "task.label=label",
        "pattern.layers.include=['block']", *(word.format(model=model) for word in words),
    )  # fmt: skip
    assert finished.code == 2, finished.err
    assert "use distill=logits" in finished.err
    assert not (workplace / "outputs").exists()
