"""A whole model with its weights in a compact file: saving, and loading as a dense model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hydraprune.data.examples import Labels
from hydraprune.deploy.compact_file import (
    BITMAP,
    COMPACT_FILE,
    VALUES,
    CompactTensors,
    read_compact_file,
    write_compact_file,
)
from hydraprune.deploy.compact_weight import DTYPES, Precision, decode, encode
from hydraprune.errors import UserError
from hydraprune.models.classification_head import take_labels
from hydraprune.models.layer_roles import encoder_layers
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.models.slim_sizes import fitted_class, sizes_of
from hydraprune.utils.hub_access import at_home, exists, loading, model_of_run


@dataclass(frozen=True)
class CompactSizes:
    """Bytes of a model: of the matrices in its encoder's blocks, and of the whole.

    Args:
        encoder, model: in the file; `model` is the file.
        dense_encoder, dense_model: the same numbers as float32 tensors.
        sparse: matrices that are stored without their zeros.
    """

    encoder: int
    dense_encoder: int
    model: int
    dense_model: int
    sparse: int


def compact_tensors(model: nn.Module, precision: Precision = "fp32", embeddings: Precision = "fp32") -> CompactTensors:
    """The weights of a model, each matrix without its zeros where that takes fewer bytes.

    Args:
        precision: of matrices, those of the head included. All other tensors stay as they are.
        embeddings: of embedding tables.

    Raises:
        ValueError: a weight has values beyond the range of its precision.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    sparse, dense = {}, {}
    for name, tensor in _stored(model).items():
        if tensor.dim() != 2 or not tensor.is_floating_point():
            dense[name] = tensor
            continue
        chosen = embeddings if id(tensor) in tables else precision
        try:
            compact = encode(tensor, chosen)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
        kept = tensor.detach().to(DTYPES[chosen])
        if compact.bytes < kept.numel() * kept.element_size():
            sparse[name] = compact
        else:
            dense[name] = kept
    return CompactTensors(sparse, dense)


def save_compact(
    model: nn.Module, folder: Path, precision: Precision = "fp32", embeddings: Precision = "fp32"
) -> CompactSizes:
    """Write the compact file of a model into a folder; its config and tokenizer are not written.

    Raises:
        ValueError: see `compact_tensors` and `write_compact_file`.
        OSError: it cannot be written.
    """
    tensors = compact_tensors(model, precision, embeddings)
    file = folder / COMPACT_FILE
    write_compact_file(tensors, file)
    layers = {f"{name}.weight" for name in encoder_layers(model)}
    matrices = {name: t for name, t in _stored(model).items() if t.dim() == 2 and name in layers}
    encoder = sum(
        tensors.sparse[name].bytes
        if name in tensors.sparse
        else tensors.dense[name].numel() * tensors.dense[name].element_size()
        for name in matrices
    )
    return CompactSizes(
        encoder=encoder,
        dense_encoder=sum(4 * tensor.numel() for tensor in matrices.values()),
        model=file.stat().st_size,
        dense_model=sum(4 * tensor.numel() for tensor in _stored(model).values()),
        sparse=len(tensors.sparse),
    )


def is_compact(folder: Path) -> bool:
    """Whether the weights of a folder are in a compact file."""
    return exists(folder / COMPACT_FILE)


def read_compact(folder: str | Path) -> CompactTensors:
    """The weights of a folder with a compact file; no dense matrix is made. See `live_blocks` for those of one matrix.

    Raises:
        UserError: there is no such file, or it cannot be used.
    """
    file = at_home(str(folder)) / COMPACT_FILE
    if not file.is_file():
        raise UserError("no such file", key=str(file), cure="give a folder that hydraprune export --to compact wrote")
    return read_compact_file(file)


@dataclass(frozen=True)
class CompactModel(PretrainedModel):
    """A folder with a compact file in the place of other weights; otherwise a `PretrainedModel`."""

    weight_files: ClassVar[tuple[str, ...]] = (COMPACT_FILE,)

    def load(self, labels: Labels | None = None) -> nn.Module:
        """The model as `transformers` makes it: dense, float32; with `labels`, its outputs in their order.

        Raises:
            UserError: the file or the config cannot be used, or they do not fit together.
        """
        tensors = read_compact(self.path)
        config, blueprint = self.config(), self.blueprint()
        # Shapes first: a matrix is as large as its config says, not as a damaged file says.
        expected = {name: tuple(tensor.shape) for name, tensor in _stored(blueprint).items()}
        stored = {name: tensors.shape(name) for name in (*tensors.sparse, *tensors.dense)}
        if stored != expected:
            name = min(name for name in stored.keys() | expected.keys() if stored.get(name) != expected.get(name))
            where = f"{name:.100} is {_shown(stored.get(name))} in it, and {_shown(expected.get(name))} by config.json"
            file = str(at_home(self.path) / COMPACT_FILE)
            raise UserError(where, key=file, cure="give the config.json that belongs to it")
        if config.pad_token_id is None:  # a decoder's head finds the end of a text by it
            config.pad_token_id = self.tokenizer().pad_token_id
        weights = {name: _single(tensor) for name, tensor in tensors.dense.items()}
        weights |= {name: decode(weight) for name, weight in tensors.sparse.items()}
        made: Any = fitted_class(type(blueprint)) if sizes_of(config) else type(blueprint)
        with loading(self.key, self.path):
            model: nn.Module = made.from_pretrained(None, config=config, state_dict=weights, dtype=torch.float32)
            model.__class__ = type(blueprint)
        if labels is not None:
            take_labels(model, labels)
        return model


def load_compact(folder: str | Path, key: str = "folder") -> nn.Module:
    """The model of a folder with a compact file, as `transformers` makes it: dense, float32, in evaluation mode.

    Args:
        key: of the folder, for errors.

    Raises:
        UserError: the file or the config cannot be used, or they do not fit together.
    """
    return CompactModel(Path(folder).name, str(folder), key=key).load().eval()


def source_of(path: str, key: str) -> PretrainedModel:
    """The model of a folder, of a run's folder or of the hub, whatever its weights are stored as.

    Args:
        key: of the path, for errors.
    """
    path = str(model_of_run(at_home(path)) or path)
    made = CompactModel if is_compact(at_home(path)) else PretrainedModel
    return made(at_home(path).name, path, key=key)


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model that are saved, by name, each of those that are shared once."""
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    tensors = {**dict(model.named_parameters()), **buffers}
    if clash := sorted(name for name in tensors if name.endswith((BITMAP, VALUES))):
        raise ValueError(f"{clash[0]} has a name that compact files keep for their own tensors")
    return tensors


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _shown(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))
