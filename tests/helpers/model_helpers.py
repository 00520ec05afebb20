"""Small models with random weights, one for each family, and a tiny checkpoint in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hydraprune.data.examples import Labels
from hydraprune.models.tiny import TinyModel

TWO_CLASSES = Labels(("negative", "positive"))
KINDS = ("bert", "roberta", "electra", "distilbert", "gpt2")
# `mpnet` is not among `hydraprune.models.families.FAMILIES`.
_CLASSES: dict[str, tuple[Any, Any]] = {
    "bert": (BertConfig, BertForSequenceClassification),
    "roberta": (RobertaConfig, RobertaForSequenceClassification),
    "mpnet": (MPNetConfig, MPNetForSequenceClassification),
    "electra": (ElectraConfig, ElectraForSequenceClassification),
    "distilbert": (DistilBertConfig, DistilBertForSequenceClassification),
    "gpt2": (GPT2Config, GPT2ForSequenceClassification),
}


def small_model(
    kind: str, width: int = 32, layers: int = 2, heads: int = 4, ffn: int = 64, vocabulary: int = 30, **more: Any
) -> nn.Module:
    """A model of these sizes from torch's global generator; `more` are fields of its config."""
    if kind == "distilbert":
        sizes = {"dim": width, "n_layers": layers, "n_heads": heads, "hidden_dim": ffn}
    elif kind == "gpt2":
        sizes = {"n_embd": width, "n_layer": layers, "n_head": heads}
    else:
        sizes = {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": ffn,
        }
    if kind == "electra":
        sizes["embedding_size"] = 16
    config, model = _CLASSES[kind]
    made: nn.Module = model(config(vocab_size=vocabulary, **{**sizes, **more}))
    return made


def save_tiny(folder: Path, labels: Labels = TWO_CLASSES, **sizes: Any) -> Path:
    """Save a `TinyModel` with its tokenizer, as a dense model or teacher; returns `folder`."""
    tiny = TinyModel("tiny", **{"hidden_size": 64, "layers": 1, "heads": 4, "ffn_size": 64, **sizes})
    tiny.load(labels).save_pretrained(folder)  # type: ignore[operator]
    tiny.tokenizer().save_pretrained(folder)
    return folder
