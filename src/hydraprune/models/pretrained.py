"""Pretrained models and tokenizers: from the hub, from a folder, or tiny ones with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
)

from hydraprune.data.examples import Labels
from hydraprune.errors import UserError, single_line
from hydraprune.models.checkpoint_use import remember_use, use_of
from hydraprune.models.classification_head import head_modules, set_labels, take_labels
from hydraprune.models.families import ModelFamily, attach_family
from hydraprune.models.head_classes import head_class
from hydraprune.models.slim_sizes import fit_sizes, fitted_class, sizes_of
from hydraprune.models.stored_weights import stored_misfit
from hydraprune.sparsity.statistics import nonfinite_parameters
from hydraprune.utils.hub_access import at_home, loading, local_or_id

_ATTENTION_FIELDS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


class ModelSource(Protocol):
    """What a model class must offer; a config names it by `model._target_`, and its fields are the config's keys."""

    @property
    def name(self) -> str:
        """The name on the command line; names folders and rows of tables."""

    def config(self) -> PretrainedConfig:
        """The model's Hugging Face config."""

    def tokenizer(self) -> Any:
        """Its tokenizer."""

    def load(self, labels: Labels | None = None) -> nn.Module:
        """The model for sequence classification; with `labels`, with a head for them."""

    def blueprint(self, labels: Labels | None = None) -> nn.Module:
        """The same on the meta device: modules and shapes without weights."""


@dataclass(frozen=True)
class PretrainedModel:
    """A checkpoint for sequence classification: a hub id or a local folder.

    Args:
        name: the name on the command line; names folders and rows of tables.
        path: hub id or folder.
        revision: of the hub repository.
        type: `model_type` to assume if the checkpoint's config.json has none.
        key: the config key of `path`, for errors.
        family: the facts about a model family that `hydraprune.models.families` does not know.
    """

    name: str
    path: str
    revision: str | None = None
    type: str | None = None
    key: str = "model.path"
    family: ModelFamily | None = None
    # A folder holds at least one of these.
    weight_files: ClassVar[tuple[str, ...]] = (
        "model.safetensors",
        "pytorch_model.bin",
        "model.safetensors.index.json",
        "pytorch_model.bin.index.json",
    )

    def config(self) -> PretrainedConfig:
        """The checkpoint's own config.

        Raises:
            UserError: it cannot be found, reached or understood.
        """
        source = local_or_id(self.path, self.key)
        with loading(self.key, self.path):
            raw, _ = PretrainedConfig.get_config_dict(source, revision=self.revision)
            folder = Path(source)
            if not raw:
                raise self._without_config(folder)
            if folder.is_dir() and not any((folder / name).exists() for name in self.weight_files):
                raise self._error(f"holds no weights ({', '.join(self.weight_files[:2])})")
            self._refuse_code(raw)
            self._refuse_label_names(raw.get("id2label"))
            if "model_type" in raw:
                return AutoConfig.from_pretrained(source, revision=self.revision, trust_remote_code=False)
            if self.type is None:
                reason = "its config.json has no model_type"
                raise self._error(reason, "give it as model.type, for example model.type=bert")
            return AutoConfig.for_model(self.type, **raw)

    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer. Where it has no padding token, its end-of-text token is used.

        Raises:
            UserError: it cannot be loaded.
        """
        config = self.config()
        with loading(self.key, self.path, "its tokenizer (tokenizer.json, or the files in its place)"):
            tokenizer = AutoTokenizer.from_pretrained(
                local_or_id(self.path, self.key), config=config, revision=self.revision, trust_remote_code=False
            )
        if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
            tokenizer.pad_token = tokenizer.eos_token  # GPT-2 and its relatives have none
        return tokenizer

    def load(self, labels: Labels | None = None) -> nn.Module:
        """The model; with `labels`, with a head for them: the checkpoint's if it has one of that size, else a new one.

        Raises:
            UserError: it cannot be loaded, or weights are missing or have another shape (any without `labels`,
                those of the encoder with them), are stored twice or as integers, or are not finite.
        """
        config = self.config()
        self._refuse_stored(config)
        if config.pad_token_id is None:  # a decoder's head finds the end of a text by it
            config.pad_token_id = self.tokenizer().pad_token_id
        new_head = labels is not None and labels.names_outputs and config.num_labels != labels.count
        if labels is not None and new_head:
            set_labels(config, labels)
        with loading(self.key, self.path):
            kind = type(self.blueprint(labels)) if sizes_of(config) else None
            loader: Any = head_class(config, labels) if kind is None else fitted_class(kind)
            loaded, info = loader.from_pretrained(
                local_or_id(self.path, self.key),
                config=config,
                revision=self.revision,
                trust_remote_code=False,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are read from the info below
                output_loading_info=True,
            )
        model: nn.Module = loaded
        if kind is not None:
            model.__class__ = kind
        use = use_of(model, info)
        noun = "classifier" if labels is None or labels.learns_new_head else "language model"
        may_be_new = head_modules(model) if labels is not None and labels.learns_new_head else ()
        if misfit := use.misfit(f"{config.model_type} {noun}", may_be_new):
            raise self._error(*misfit)
        remember_use(model, use)
        self._refuse_nonfinite(model)
        attach_family(model, self.family)
        if labels is not None and not new_head:
            try:
                take_labels(model, labels)
            except UserError as error:
                raise self._error(error.reason, error.cure) from None
        return model

    def blueprint(self, labels: Labels | None = None) -> nn.Module:
        """The model's modules and shapes without its weights (on the meta device).

        Raises:
            UserError: the config cannot be loaded.
        """
        config = self.config()
        if labels is not None:
            set_labels(config, labels)
        return self._without_weights(head_class(config, labels).from_config, config)

    def architecture(self) -> nn.Module:
        """The model that its config.json names, on the meta device; a classifier where it names none.

        Raises:
            UserError: the config cannot be loaded.
        """
        config = self.config()
        made: Any = getattr(transformers, str((config.architectures or [""])[0]), None)
        return self.blueprint() if made is None else self._without_weights(made, config)

    def _without_weights(self, made: Any, config: PretrainedConfig) -> nn.Module:
        with torch.device("meta"), loading(self.key, self.path):
            model: nn.Module = made(config)
            fit_sizes(model)
        model.to("meta")  # some modules make tensors that no default device applies to
        attach_family(model, self.family)
        return model

    def _error(self, reason: str, cure: str | None = None) -> UserError:
        return UserError(reason, key=self.key, value=self.path, cure=cure)

    def _without_config(self, folder: Path) -> UserError:
        if (folder / "config.json").is_file():
            return self._error("its config.json holds no settings", "give the one that save_pretrained wrote")
        if (folder / "adapter_config.json").is_file():
            cure = "merge it into its model (merge_and_unload of peft), and save that"
            return self._error("is an adapter without the model that it belongs to", cure)
        inside = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
        cure = f"give {self.path.rstrip('/')}/{inside[0]}" if inside else "give a folder made by save_pretrained"
        return self._error("holds no config.json", cure)

    def _refuse_code(self, raw: dict[str, Any]) -> None:
        """Refuse a config.json that names attention kernels of the hub, which are programs."""
        for name in _ATTENTION_FIELDS:
            if "/" in str(raw.get(name, "")):
                reason = f"its config.json asks for the code of {raw[name]}, which is never run"
                raise self._error(reason, f"remove {name} from it")

    def _refuse_label_names(self, names: object) -> None:
        """Refuse an `id2label` of config.json that does not give names to numbers."""
        is_mapping = isinstance(names, dict) and all(str(number).strip().isdecimal() for number in names)
        if names is not None and not is_mapping:
            reason = f"id2label={single_line(names):.60} in its config.json does not map numbers to names"
            raise self._error(reason, 'write it as in {"0": "no", "1": "yes"}')

    def _refuse_stored(self, config: PretrainedConfig) -> None:
        """Refuse an adapter beside the model, a weight that is stored twice, and numbers that are no floats.

        Those of quantized models aside.
        """
        folder = at_home(self.path)
        if (folder / "adapter_config.json").is_file():
            # With peft installed transformers would load it, and without peft leave it out.
            cure = "merge it (merge_and_unload of peft) and save that, or remove the adapter's files"
            raise self._error("holds an adapter beside the model", cure)
        if folder.is_dir() and getattr(config, "quantization_config", None) is None:
            with loading(self.key, self.path):
                misfit = stored_misfit(folder, self.blueprint)
            if misfit:
                raise self._error(*misfit)

    def _refuse_nonfinite(self, model: nn.Module) -> None:
        if broken := nonfinite_parameters(model):
            reason = f"{len(broken)} of its weights hold NaN or infinity, {broken[0]} among them"
            raise self._error(reason, "give a model with finite weights")
