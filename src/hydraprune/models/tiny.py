"""Tiny models with random weights and a tokenizer for the toy language; nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertTokenizer, LlamaConfig, PretrainedConfig

from hydraprune.data import toy
from hydraprune.data.examples import Labels
from hydraprune.errors import UserError
from hydraprune.models.classification_head import set_labels
from hydraprune.models.head_classes import head_class

# Beyond these even the shapes of a model take minutes, or do not fit into memory.
_MOST_WIDE = 16_384
_MOST = {"layers": 256, "max_positions": 1_048_576}


@dataclass(frozen=True)
class TinyModel:
    """A small BERT with random weights and a tokenizer for the toy language; nothing is downloaded.

    Raises:
        UserError: a size is out of range.
    """

    name: str
    hidden_size: int
    layers: int
    heads: int
    ffn_size: int
    max_positions: int = 128
    dropout: float = 0.0
    initializer_range: float = 0.02
    key: str = field(default="model", init=False)

    def __post_init__(self) -> None:
        for name in ("hidden_size", "layers", "heads", "ffn_size", "max_positions"):
            value, most = getattr(self, name), _MOST.get(name, _MOST_WIDE)
            if value < 1:
                raise self._error(name, "must be at least 1")
            if value > most:
                raise self._error(name, f"must be at most {most}", "for a larger model use another than model=tiny")
        if not 0.0 < self.initializer_range <= 1.0:
            raise self._error("initializer_range", "must be above 0 and at most 1")
        if not 0.0 <= self.dropout < 1.0:
            raise self._error("dropout", "must be at least 0 and below 1")
        if self.hidden_size % self.heads:
            raise self._error("heads", f"must divide model.hidden_size={self.hidden_size}")

    def _error(self, name: str, reason: str, cure: str | None = None) -> UserError:
        return UserError(reason, key=f"model.{name}", value=getattr(self, name), cure=cure)

    def config(self) -> PretrainedConfig:
        """The BERT config of these sizes."""
        dropout = float(self.dropout)
        return BertConfig(**self._sizes(), hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)

    def _sizes(self) -> dict[str, Any]:
        """The fields that configs of all families have."""
        return {
            "vocab_size": len(_tiny_vocabulary()),
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.ffn_size,
            "max_position_embeddings": self.max_positions,
            "initializer_range": float(self.initializer_range),
        }

    def tokenizer(self) -> Any:
        """A tokenizer with whole words of the toy language and single characters for everything else."""
        return BertTokenizer(vocab={token: index for index, token in enumerate(_tiny_vocabulary())})

    def load(self, labels: Labels | None = None) -> nn.Module:
        """Random weights, drawn from torch's global generator."""
        config = self.config()
        if labels is not None:
            set_labels(config, labels)
        model: nn.Module = head_class(config, labels).from_config(config)
        return model

    def blueprint(self, labels: Labels | None = None) -> nn.Module:
        """The model's modules and shapes on the meta device."""
        with torch.device("meta"):
            return self.load(labels)


class TinyDecoder(TinyModel):
    """The same as a decoder: a small Llama, for the next tokens of running text."""

    def config(self) -> PretrainedConfig:
        """The Llama config of these sizes."""
        tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
        return LlamaConfig(**self._sizes(), attention_dropout=float(self.dropout), **tokens)


def _tiny_vocabulary() -> list[str]:
    characters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()-$%&/"
    words = [w for w in toy.vocabulary() if w not in characters]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters[:36]), *words]
