"""Checkpoints of every kind we promise, made here with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hydraprune.config import instantiate as assembly
from hydraprune.data.examples import Labels
from hydraprune.errors import UserError
from hydraprune.models.families import FAMILIES, family_of, is_known
from hydraprune.models.pretrained import PretrainedModel, TinyModel
from hydraprune.runs import setup as building
from hydraprune.sparsity import Exp, Layers, Magnitude, Plans, block

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
NETWORKS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(vocab_size=9, **SMALL)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(vocab_size=9, **SMALL)),
    "electra": lambda: ElectraForSequenceClassification(ElectraConfig(vocab_size=9, embedding_size=16, **SMALL)),
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=9, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    ),
    "gpt2": lambda: GPT2ForSequenceClassification(GPT2Config(vocab_size=9, n_embd=32, n_layer=2, n_head=2)),
}
TWO = Labels(("no", "yes"))


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    tokenizer = BertTokenizer(vocab={t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])})
    NETWORKS["bert"]().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_encoder_is_pruned_and_nothing_outside(kind: str) -> None:
    network = NETWORKS[kind]()
    plan = block(4, 1, 0.5).parts["4x1"].completed(Magnitude(), Exp())
    (pruner,) = assembly.pruners(Plans("4x1", {"4x1": plan}), network, 10, 5)
    per_layer = 4 if kind == "gpt2" else 6
    assert len(pruner.weights) == 2 * per_layer
    roles = {family_of(kind).role_of(weight.name.removesuffix(".weight")) for weight in pruner.weights}
    assert None not in roles
    assert roles == set(FAMILIES[kind].roles)
    names = {name for name, _ in network.named_modules()}
    assert set(FAMILIES[kind].outside) - names <= {"bert.pooler.dense"}


def test_a_family_that_we_do_not_know_must_be_told_its_layers() -> None:
    class Config:
        model_type = "elsewhere"

    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    network.config = Config()
    plan = block(4, 1, 0.5).parts["4x1"].completed(Magnitude(), Exp())
    assert not is_known("elsewhere")
    with pytest.raises(UserError, match=r"pattern\.layers\.include"):
        assembly.pruners(Plans("4x1", {"4x1": plan}), network, 10, 5)
    told = block(4, 1, 0.5, layers=Layers(include=["^0$"])).parts["4x1"].completed(Magnitude(), Exp())
    (pruner,) = assembly.pruners(Plans("4x1", {"4x1": told}), network, 10, 5)
    assert [weight.name for weight in pruner.weights] == ["0.weight"]


def test_a_checkpoint_without_model_type(bert: Path) -> None:
    """As the well-known bert-mini: its config.json does not say what it is, its tokenizer is a vocab.txt."""
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


def test_old_weights_files_load(bert: Path) -> None:
    network = BertForSequenceClassification.from_pretrained(bert)
    (bert / "model.safetensors").unlink()
    torch.save(network.state_dict(), bert / "pytorch_model.bin")
    loaded = PretrainedModel("mine", str(bert)).load(TWO)
    for name, weight in network.bert.state_dict().items():
        assert torch.equal(weight, loaded.bert.state_dict()[name])


def test_a_head_is_made_for_the_task(bert: Path) -> None:
    three = PretrainedModel("mine", str(bert)).load(Labels(("a", "b", "c")))
    assert three.classifier.weight.shape == (3, 32)
    assert three.config.id2label == {0: "a", 1: "b", 2: "c"}
    score = PretrainedModel("mine", str(bert)).load(Labels(("score",), regression=True))
    assert score.classifier.weight.shape == (1, 32)
    assert score.config.problem_type == "regression"


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        PretrainedModel("mine", str(tmp_path)).config()


def test_the_tiny_model() -> None:
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


def test_weights_that_are_not_there_are_not_made_up(bert: Path) -> None:
    network = BertForSequenceClassification.from_pretrained(bert)
    headless = bert / "headless"
    network.bert.save_pretrained(headless)
    BertTokenizer.from_pretrained(bert).save_pretrained(headless)
    # A start for fine-tuning gets a new head; a model that is to be used as it is does not.
    assert PretrainedModel("mine", str(headless)).load(TWO).classifier.weight.shape == (2, 32)
    with pytest.raises(UserError, match=r"lacks \d+ weights of a bert classifier, classifier"):
        PretrainedModel("mine", str(headless), key="dense.source").load()
    config = json.loads((bert / "config.json").read_text())
    del config["model_type"]
    (bert / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="roberta classifier"):
        PretrainedModel("mine", str(bert), type="roberta").load(TWO)


def test_a_model_that_lacks_its_weights_file(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        PretrainedModel("mine", str(bert)).config()


def test_labels_in_another_order_are_not_mixed_up() -> None:
    config = BertConfig(id2label={0: "Positive", 1: "negative"}, label2id={"Positive": 0, "negative": 1})
    with pytest.raises(UserError, match="order"):
        building.check_head(config, Labels(("negative", "positive")), "dense.source=x", "toy")
    building.check_head(config, Labels(("positive", "negative")), "dense.source=x", "toy")
    building.check_head(BertConfig(), Labels(("negative", "positive")), "dense.source=x", "toy")
