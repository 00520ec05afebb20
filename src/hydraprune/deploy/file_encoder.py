"""Accelerated models straight from their files: no dense model is made, and the table of words stays in its file."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.initialization import no_init_weights

from hydraprune.deploy.compact_model import CompactModel
from hydraprune.deploy.encoder_modules import ENCODERS, encoder_weights, fused_misfit, layer_weights
from hydraprune.deploy.encoder_trial import other_outputs
from hydraprune.deploy.file_table import FileTable, FileTableEncoder
from hydraprune.deploy.file_weights import FileWeights, check_finite, checkpoint_weights, compact_weights
from hydraprune.deploy.fused_encoder import FusedEncoder
from hydraprune.errors import UserError
from hydraprune.kernels.compiled import Compiled
from hydraprune.kernels.encoders import Encoder, EncoderWeights, LayerWeights
from hydraprune.kernels.packing import PackedLinear, Precision, pack, pack_blocks
from hydraprune.models.classification_head import base_model
from hydraprune.models.encoder_layers import EncoderLayer, encoder_layers
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.models.slim_sizes import KEY as SLIM
from hydraprune.utils.hub_access import at_home

log = logging.getLogger(__name__)
# Fields of a config that let transformers load other files than those of the weights, or other modules.
_FIELDS = ("quantization_config", "fusion_config", "transformers_weights", SLIM)
# Files of an adapter, and of a checkpoint that several processes wrote.
_OTHER_FILES = ("adapter_config.json", "shard-*.safetensors")
_WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class FileModel:
    """An accelerated model, and what was seen of its weights.

    Args:
        zeros: share of the encoder's linear weights that is zero.
        layers: linear layers that the kernels compute.
    """

    model: nn.Module
    zeros: float
    layers: int


def accelerate_file(source: PretrainedModel, precision: Precision, compiled: Compiled) -> FileModel | None:
    """The accelerated model of a folder; None where it must be loaded as a whole.

    That is so for everything but models of a class of transformers whose safetensors files, or compact file, hold its
    weights under its names and in its shapes, no more and no fewer, all finite. What is wrong with others is for the
    usual way to say.

    Modules are made for one layer alone, and the outputs of embeddings and first layer are compared with theirs: this
    is what can tell that the kernels do not compute this class and config as transformers does. The further layers are
    the same modules with other numbers.
    """
    try:
        return _made(source, precision, compiled)
    except (OSError, ValueError, RuntimeError, UserError) as error:
        log.debug("not accelerated from its files: %s", error)
        return None


def _made(source: PretrainedModel, precision: Precision, compiled: Compiled) -> FileModel | None:
    folder, is_compact = at_home(source.path), isinstance(source, CompactModel)
    if not folder.is_dir() or any(True for name in _OTHER_FILES for _ in folder.glob(name)):
        return None
    config = source.config()
    kind = _class_of(config, is_compact)
    weights = compact_weights(folder) if is_compact else checkpoint_weights(folder)
    if kind is None or weights is None:
        return None
    model = _with_one_layer(kind, config)
    if model is None or weights.shapes() != _shapes(model, config.num_hidden_layers):
        return None
    prefix, found = base_model(model)
    base: Any = model if found is None else found
    if fused_misfit(base) is not None:
        return None
    table = _fill(model, weights, "" if base is model else f"{prefix}.")
    reader = _LayerReader(weights, base, "" if base is model else f"{prefix}.", precision)
    single = encoder_weights(base, precision, reader.pack_linear)
    trial = FusedEncoder(base.config, _encoder(single, compiled, table), None, base.dtype)
    if other_outputs(base, trial, precision):
        return None
    layers = [*single.layers, *(reader.layer(number) for number in range(1, config.num_hidden_layers))]
    if weights.changed():
        return None
    base.config.num_hidden_layers = len(layers)
    encoder = _encoder(replace(single, layers=layers), compiled, table)
    fused = FusedEncoder(base.config, encoder, getattr(base, "pooler", None), base.dtype)
    zeros = _zeros(base, layers)
    if base is not model:
        setattr(model, prefix, fused)
        fused = model
    return FileModel(fused.eval(), zeros, 6 * len(layers))


def _class_of(config: PretrainedConfig, is_classifier: bool) -> type[Any] | None:
    """The class of a model whose encoder may be computed by the kernels.

    Args:
        is_classifier: whether it must be one for sequence classification.
    """
    name = str((getattr(config, "architectures", None) or [""])[0])
    kind: Any = getattr(transformers, name, None)
    if config.model_type not in ENCODERS or getattr(kind, "config_class", None) is not type(config):
        return None
    if is_classifier and not name.endswith("ForSequenceClassification"):
        return None
    if any(getattr(config, field, None) is not None for field in _FIELDS) or config.pad_token_id is None:
        return None
    return cast("type[Any]", kind)


def _with_one_layer(kind: type[Any], config: PretrainedConfig) -> Any:
    """A model with as many layers as it takes to know all of them, its parameters without values; None if it fails."""
    if config.num_hidden_layers < 1:
        return None
    config = copy.deepcopy(config)
    config.num_hidden_layers, config.dtype = 1, torch.float32
    try:
        with no_init_weights():  # but buffers have their values, which they would not on the meta device
            model = kind(config).eval()
    except Exception:  # whatever a config that makes no sense leads to
        return None
    model.requires_grad_(False)
    has_buffers = model.state_dict().keys() != dict(model.named_parameters()).keys()
    is_tied = getattr(model, "all_tied_weights_keys", None) != {}
    return None if has_buffers or is_tied or not encoder_layers(model) else model


def _shapes(model: nn.Module, layers: int) -> dict[str, tuple[int, ...]]:
    """The shape of every weight that a model of one layer has when it has so many."""
    (layer,) = encoder_layers(model)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters():
        inside = name.startswith(f"{layer.name}.")
        for number in range(layers) if inside else (0,):
            shapes[_renumbered(name, layer, number) if inside else name] = tuple(parameter.shape)
    return shapes


def _renumbered(name: str, layer: EncoderLayer, number: int) -> str:
    """The name that something in a layer has in the layer of another number."""
    return f"{layer.name.rpartition('.')[0]}.{number}{name.removeprefix(layer.name)}"


def _fill(model: nn.Module, weights: FileWeights, prefix: str) -> FileTable | None:
    """Give a model its weights; those of its words stay in the file where they can."""
    table = weights.table(prefix + _WORDS)
    for name, _ in list(model.named_parameters()):
        is_table = table is not None and name == prefix + _WORDS
        _place(model, name, table.tensor if table is not None and is_table else weights.read(name))
    if table is not None:
        words = model.get_submodule(prefix + _WORDS.rpartition(".")[0])
        words.register_forward_pre_hook(lambda _, given: table.read(given[0]))
    return table


def _place(model: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))


def _encoder(weights: EncoderWeights, compiled: Compiled, table: FileTable | None) -> Encoder:
    return Encoder(weights, compiled) if table is None else FileTableEncoder(weights, compiled, table)


class _LayerReader:
    """Packs the layers of a model one by one, with the modules of its only layer."""

    def __init__(self, weights: FileWeights, base: nn.Module, prefix: str, precision: Precision) -> None:
        self._weights, self._base, self._prefix, self._precision = weights, base, prefix, precision
        (self._layer,) = encoder_layers(base)
        self._names = {module: name for name, module in base.named_modules()}
        self._number = 0
        largest = weights.bytes_of_largest([f"{prefix}{name}" for name, _ in base.named_parameters() if name != _WORDS])
        self._buffer = torch.empty(largest, dtype=torch.uint8)

    def layer(self, number: int) -> LayerWeights:
        """The weights of a layer."""
        self._number = number
        inside = self._base.get_submodule(self._layer.name)
        for name, parameter in list(inside.named_parameters()):
            if parameter.dim() == 1:  # those of the normalisations are kept, and biases take no time
                _place(inside, name, self._weights.read(self._name(f"{self._layer.name}.{name}")))
        return layer_weights(self._base, self._layer, self.pack_linear)

    def pack_linear(self, linear: nn.Linear, scale: float) -> PackedLinear:
        """A linear layer of the layer, packed, with the weight that the file has for it."""
        name = self._name(f"{self._names[linear]}.weight")
        bias = None if linear.bias is None else linear.bias * scale
        blocks = self._weights.blocks(name)
        if blocks is None:
            weight = self._weights.read_unchecked(name, self._buffer)
            packed = pack(weight if scale == 1 else weight.mul_(scale), bias, self._precision)
        else:
            packed = pack_blocks(blocks.shape, blocks.live(), blocks.values.float() * scale, bias, self._precision)
        for part in packed.parts:  # NaN and infinity are no zeros
            check_finite(name, part.value)
        return packed

    def _name(self, name: str) -> str:
        return self._prefix + _renumbered(name, self._layer, self._number)


def _zeros(base: nn.Module, layers: Sequence[LayerWeights]) -> float:
    """The share of zeros in the linear layers of a base model."""
    packed = [part for layer in layers for part in vars(layer).values() if isinstance(part, PackedLinear)]
    inside = {linear for layer in encoder_layers(base) for linear in vars(layer).values()}
    others = [m.weight for m in base.modules() if isinstance(m, nn.Linear) and m not in inside]
    total = sum(weight.numel() for weight in others) + sum(one.shape[0] * one.shape[1] for one in packed)
    values = [part.value for one in packed for part in one.parts]
    return 1 - sum(int(tensor.count_nonzero()) for tensor in [*others, *values]) / total
