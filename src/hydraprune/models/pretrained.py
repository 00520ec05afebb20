"""Models and tokenizers, from the hub, from a folder, or made on the spot."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    PretrainedConfig,
)

from hydraprune.data import toy
from hydraprune.data.examples import Labels
from hydraprune.errors import UserError
from hydraprune.models.families import family_of, is_known
from hydraprune.utils.hub_access import loading, local_or_id

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PretrainedModel:
    """A checkpoint for sequence classification: a hub id or a local folder.

    Args:
        name: the word on the command line; names folders and rows.
        path: hub id or folder.
        revision: of the hub repository.
        type: `model_type` to assume when the checkpoint's config.json has none.
        key: what `path` is called in the config, for errors.
    """

    name: str
    path: str
    revision: str | None = None
    type: str | None = None
    key: str = "model.path"

    def config(self) -> PretrainedConfig:
        """The checkpoint's own config.

        Raises:
            UserError: it cannot be found, reached or understood.
        """
        source = local_or_id(self.path, self.key)
        with loading(self.key, self.path):
            raw, _ = PretrainedConfig.get_config_dict(source, revision=self.revision)
            if not raw:
                raise UserError(f"{self.key}={self.path}: holds no config.json; give a folder made by save_pretrained")
            folder = Path(source)
            if folder.is_dir() and not any((folder / name).exists() for name in _WEIGHTS):
                raise UserError(f"{self.key}={self.path}: holds no weights ({', '.join(_WEIGHTS[:2])})")
            _refuse_code(raw, f"{self.key}={self.path}")
            if "model_type" in raw:
                return AutoConfig.from_pretrained(source, revision=self.revision, trust_remote_code=False)
            if self.type is None:
                raise UserError(
                    f"{self.key}={self.path}: its config.json has no model_type; say it: model.type=bert, for example"
                )
            return AutoConfig.for_model(self.type, **raw)

    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        config = self.config()
        with loading(self.key, self.path):
            return AutoTokenizer.from_pretrained(
                local_or_id(self.path, self.key), config=config, revision=self.revision, trust_remote_code=False
            )

    def load(self, labels: Labels | None = None) -> nn.Module:
        """The model; with `labels`, its head made for them (new if the checkpoint has none that fits).

        Raises:
            UserError: it cannot be loaded, or weights are missing (any without `labels`, those of the
                encoder with them) or not finite.
        """
        config = self.config()
        replaced = labels is not None and config.num_labels != labels.count
        if labels is not None:
            _set_labels(config, labels)
        if config.pad_token_id is None:  # GPT-2's family cannot batch without
            config.pad_token_id = self.tokenizer().pad_token_id
        with loading(self.key, self.path):
            model, found = AutoModelForSequenceClassification.from_pretrained(
                local_or_id(self.path, self.key),
                config=config,
                revision=self.revision,
                trust_remote_code=False,
                dtype=torch.float32,
                ignore_mismatched_sizes=replaced,
                output_loading_info=True,
            )
        self._refuse_random(found["missing_keys"], config.model_type, head_may_be_new=labels is not None)
        self._refuse_nonfinite(model)
        loaded: nn.Module = model
        return loaded

    def _refuse_nonfinite(self, model: nn.Module) -> None:
        # Of a sum, which one pass over the memory makes; a sum that only overflows is looked at again.
        broken = [name for name, weight in model.named_parameters() if not bool(weight.detach().sum().isfinite())]
        broken = [name for name in broken if not bool(model.get_parameter(name).isfinite().all())]
        if broken:
            raise UserError(
                f"{self.key}={self.path}: {len(broken)} of its weights hold NaN or infinity, {broken[0]} among them; "
                f"give a model that was saved whole"
            )

    def _refuse_random(self, missing: Iterable[str], kind: str, head_may_be_new: bool) -> None:
        """A weight that the checkpoint lacks is random; only a new head may be."""
        outside = tuple(f"{name}." for name in family_of(kind).outside)
        if head_may_be_new:
            missing = [name for name in missing if not name.startswith(outside) and is_known(kind)]
        if lost := sorted(missing):
            raise UserError(
                f"{self.key}={self.path}: lacks {len(lost)} weights of a {kind} classifier, {lost[0]} among them, so "
                f"they would be random; give a whole fine-tuned model, or the right model.type"
            )

    def blueprint(self, labels: Labels | None = None) -> nn.Module:
        """The model's modules and shapes without its weights (on the meta device)."""
        config = self.config()
        if labels is not None:
            _set_labels(config, labels)
        with torch.device("meta"), loading(self.key, self.path):
            model: nn.Module = AutoModelForSequenceClassification.from_config(config)
        return model


@dataclass(frozen=True)
class TinyModel:
    """A small BERT with random weights and a tokenizer for the toy language; nothing is downloaded."""

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
        for key in ("hidden_size", "layers", "heads", "ffn_size", "max_positions"):
            value, most = getattr(self, key), _MOST.get(key, _MOST_WIDE)
            if value < 1:
                raise UserError(f"model.{key}={value}: must be at least 1")
            if value > most:
                raise UserError(f"model.{key}={value}: must be at most {most}; model=tiny is meant to be small")
        if not 0.0 < self.initializer_range <= 1.0:
            raise UserError(f"model.initializer_range={self.initializer_range}: must be above 0 and at most 1")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"model.dropout={self.dropout}: must be at least 0 and below 1")
        if self.hidden_size % self.heads:
            raise UserError(f"model.heads={self.heads}: must divide model.hidden_size={self.hidden_size}")

    def config(self) -> PretrainedConfig:
        """The BERT config of these sizes."""
        return BertConfig(
            vocab_size=len(_tiny_vocabulary()),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.ffn_size,
            max_position_embeddings=self.max_positions,
            hidden_dropout_prob=float(self.dropout),
            attention_probs_dropout_prob=float(self.dropout),
            initializer_range=float(self.initializer_range),
        )

    def tokenizer(self) -> Any:
        """Whole words of the toy language, single characters for everything else."""
        return BertTokenizer(vocab={token: index for index, token in enumerate(_tiny_vocabulary())})

    def load(self, labels: Labels | None = None) -> nn.Module:
        """Random weights, drawn from torch's global generator."""
        config = self.config()
        if labels is not None:
            _set_labels(config, labels)
        model: nn.Module = BertForSequenceClassification(config)
        return model

    def blueprint(self, labels: Labels | None = None) -> nn.Module:
        """The model's modules and shapes on the meta device."""
        with torch.device("meta"):
            return self.load(labels)


# Beyond these even the shapes of a model take minutes, or no memory holds them.
_MOST_WIDE = 16_384
_MOST = {"layers": 256, "max_positions": 1_048_576}
_WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)


def _refuse_code(raw: dict[str, Any], where: str) -> None:
    """A config.json can ask for kernels of the hub, which are programs."""
    for name in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
        if "/" in str(raw.get(name, "")):
            raise UserError(
                f"{where}: its config.json asks for the code of {raw[name]}, which is not run; take {name} out"
            )


def model_type(model: nn.Module) -> str:
    """`config.model_type` of a Hugging Face model."""
    return str(model.config.model_type)  # type: ignore[union-attr]


def _set_labels(config: PretrainedConfig, labels: Labels) -> None:
    config.num_labels = labels.count
    config.id2label = dict(enumerate(labels.names))
    config.label2id = {name: index for index, name in enumerate(labels.names)}
    config.problem_type = "regression" if labels.regression else "single_label_classification"


def _tiny_vocabulary() -> list[str]:
    characters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()-$%&/"
    words = [w for w in toy.vocabulary() if w not in characters]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters[:36]), *words]
