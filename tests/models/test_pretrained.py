"""Pretrained models: checkpoints of every supported form, new heads, missing weights, the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from family_helpers import save_checkpoint
from model_helpers import small_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, PreTrainedTokenizerFast

from hydraprune.data.examples import Labels
from hydraprune.errors import UserError
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.models.saving import save_model
from hydraprune.models.tiny import TinyModel
from hydraprune.runs.model_loading import check_head

TWO = Labels(("no", "yes"))


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    tokenizer = BertTokenizer(vocab={t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])})
    small_model("bert", heads=2, vocabulary=9).save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_without_model_type_needs_model_type_in_the_config(bert: Path) -> None:
    """Like prajjwal1/bert-mini: no model_type in config.json, and only a vocab.txt for a tokenizer."""
    config = json.loads((bert / "config.json").read_text())
    del config["model_type"]
    (bert / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (bert / file).unlink(missing_ok=True)
    (bert / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    model = PretrainedModel("bert_mini", str(bert), type="bert")
    network = model.load(TWO)
    assert type(network).__name__ == "BertForSequenceClassification"
    assert network.config.hidden_size == 32
    assert model.tokenizer()("a a")["input_ids"] == [2, 5, 5, 3]
    stored = BertForSequenceClassification.from_pretrained(bert, config=network.config)
    for name, weight in stored.bert.state_dict().items():
        assert torch.equal(weight, network.bert.state_dict()[name])
    with pytest.raises(UserError, match=r"model\.type"):
        PretrainedModel("mine", str(bert)).config()


def test_a_pytorch_model_bin_is_loaded(bert: Path) -> None:
    network = BertForSequenceClassification.from_pretrained(bert)
    (bert / "model.safetensors").unlink()
    torch.save(network.state_dict(), bert / "pytorch_model.bin")
    loaded = PretrainedModel("mine", str(bert)).load(TWO)
    for name, weight in network.bert.state_dict().items():
        assert torch.equal(weight, loaded.bert.state_dict()[name])


def test_the_head_fits_the_task(bert: Path) -> None:
    three = PretrainedModel("mine", str(bert)).load(Labels(("a", "b", "c")))
    assert three.classifier.weight.shape == (3, 32)
    assert three.config.id2label == {0: "a", 1: "b", 2: "c"}
    score = PretrainedModel("mine", str(bert)).load(Labels(("score",), regression=True))
    assert score.classifier.weight.shape == (1, 32)
    assert score.config.problem_type == "regression"


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        PretrainedModel("mine", str(tmp_path)).config()


def test_the_tiny_model_is_reproducible_and_knows_the_toy_language() -> None:
    tiny = TinyModel("tiny", 64, 2, 4, 128)
    tokens = tiny.tokenizer()
    assert tokens.decode(tokens("the film was not good")["input_ids"]) == "[CLS] the film was not good [SEP]"
    assert tokens.unk_token_id not in tokens("zebra42")["input_ids"]
    torch.manual_seed(0)
    one = tiny.load(TWO)
    torch.manual_seed(0)
    two = tiny.load(TWO)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    for module in one.bert.encoder.modules():
        if isinstance(module, torch.nn.Linear):
            assert module.in_features % 32 == 0
            assert module.out_features % 32 == 0
    with pytest.raises(UserError, match="heads=3"):
        TinyModel("tiny", 64, 2, 3, 128)


def test_missing_encoder_weights_are_refused(bert: Path) -> None:
    network = BertForSequenceClassification.from_pretrained(bert)
    headless = bert / "headless"
    network.bert.save_pretrained(headless)
    BertTokenizer.from_pretrained(bert).save_pretrained(headless)
    # A model to be fine-tuned gets a new head; one that is used as it is does not.
    assert PretrainedModel("mine", str(headless)).load(TWO).classifier.weight.shape == (2, 32)
    with pytest.raises(UserError, match=r"lacks \d+ weights of a bert classifier, classifier"):
        PretrainedModel("mine", str(headless), key="dense.source").load()
    config = json.loads((bert / "config.json").read_text())
    del config["model_type"]
    (bert / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="roberta classifier"):
        PretrainedModel("mine", str(bert), type="roberta").load(TWO)


def test_a_folder_without_a_weights_file_is_refused(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        PretrainedModel("mine", str(bert)).config()


def test_labels_in_another_order_are_said(caplog: pytest.LogCaptureFixture) -> None:
    config = BertConfig(id2label={0: "Positive", 1: "negative"}, label2id={"Positive": 0, "negative": 1})
    check_head(config, Labels(("negative", "positive")), "dense.source", "x", "toy")
    assert "are put in the order of task toy" in caplog.text
    caplog.clear()
    check_head(config, Labels(("positive", "negative")), "dense.source", "x", "toy")
    check_head(BertConfig(), Labels(("negative", "positive")), "dense.source", "x", "toy")
    assert caplog.text == ""


def test_a_head_of_several_labels_an_example_is_refused() -> None:
    config = BertConfig(problem_type="multi_label_classification")
    with pytest.raises(UserError, match="several labels to one example"):
        check_head(config, Labels(("no", "yes")), "distill.teacher", "x", "toy")


def test_a_tokenizer_without_padding_pads_with_its_end_of_text(tmp_path: Path) -> None:
    """Like GPT-2's."""
    save_checkpoint(tmp_path, "gpt2", pad_token_id=None)
    for file in tmp_path.glob("*token*"):
        file.unlink()
    words = {"<|endoftext|>": 0, "good": 1, "bad": 2, "film": 3}
    plain = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=plain, eos_token=end, unk_token=end).save_pretrained(tmp_path)
    source = PretrainedModel("mine", str(tmp_path))
    tokenizer = source.tokenizer()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 0
    assert source.load(TWO).config.pad_token_id == 0  # type: ignore[union-attr]
    folder = save_model(source.load(TWO), tokenizer, tmp_path / "run")
    again = PretrainedModel("mine", str(folder))
    assert again.tokenizer().pad_token_id == 0
    network = again.load().eval()
    ids, mask = torch.tensor([[1, 3, 0, 0], [2, 3, 1, 1]]), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    padded = network(input_ids=ids, attention_mask=mask).logits[0]
    torch.testing.assert_close(padded, network(input_ids=ids[:1, :2]).logits[0])


def test_folders_around_a_model_are_refused_with_its_place(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "0_Transformer", "bert")
    with pytest.raises(UserError, match=r"give .*0_Transformer"):
        PretrainedModel("mine", str(tmp_path)).config()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="merge_and_unload"):
        PretrainedModel("mine", str(tmp_path / "adapter")).config()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        *(
            (name, text, f"{name} in it")
            for name in ("tokenizer.json", "tokenizer_config.json")
            for text in ("[]", "{")
        ),
        *(("config.json", text, "config.json in it holds") for text in ("null", "3", '"bert"', "[1]")),
        *(("config.json", text, "its config.json holds no settings") for text in ("[]", "{}")),
        ("config.json", '{"model_type"', "config.json in it is no JSON file"),
        *(("tokenizer.json", text, "tokenizer.json") for text in ("{}", '{"added_tokens": 3}', '{"a": [1]}')),
    ],
)
def test_a_broken_json_file_is_named(file: str, content: str, words: str, bert: Path) -> None:
    (bert / file).write_text(content)
    source = PretrainedModel("mine", str(bert))
    with pytest.raises(UserError) as raised:
        source.tokenizer()
    assert words in str(raised.value)


@pytest.mark.parametrize("names", [["no", "yes"], "no", 2, {"x": "no", "y": "yes"}], ids=str)
def test_class_names_that_are_not_by_number_are_refused(names: object, bert: Path) -> None:
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**config, "id2label": names}))
    with pytest.raises(UserError, match=r"id2label=.* in its config\.json does not map numbers to names"):
        PretrainedModel("mine", str(bert)).config()
