"""A saved model of any kind, for counting its zeros: as a classifier, or by its files alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hydraprune.errors import UserError
from hydraprune.models.pretrained import PretrainedModel
from hydraprune.sparsity.layouts import module_type
from hydraprune.utils.hub_access import at_home, model_of_run
from hydraprune.utils.weights_files import loaded_files

# Tables of vectors, which no pattern prunes, by the names that they have in most models.
_TABLE = re.compile(r"(?:^|\.)(?:[^.]*embed[^.]*|wte|wpe|shared|relative_attention_bias)$")
_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


def saved_model(path: str, key: str) -> nn.Module:
    """The model of a folder, of a run's folder or of the hub; one that is no classifier by its files alone.

    Args:
        key: of the path, for errors.

    Raises:
        UserError: it cannot be found or read.
    """
    path = str(model_of_run(at_home(path)) or path)
    try:
        return PretrainedModel(Path(path).name, path, key=key).load()
    except Exception:  # no classifier, or one of a kind for which the libraries raise one of dozens of classes
        if not any(at_home(path).glob("*.safetensors")):
            raise
        return saved_weights(at_home(path), key)


def saved_weights(folder: Path, key: str) -> nn.Module:
    """A module with the parameters of a saved model under their names in its files; it cannot be called.

    Which weight belongs to a Linear and which to a convolution is told by the class that config.json names; where it
    names none that transformers has, by the shapes.

    Args:
        folder: with safetensors files.
        key: of the folder, for errors.

    Raises:
        UserError: there are no weights, or they cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    named = [folder / name for name in loaded_files(folder)]
    for file in named or sorted(path for path in folder.glob("*.safetensors") if path.is_file()):
        try:
            loaded = load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{file.name} cannot be read ({error})", key=key, value=folder) from None
        if twice := sorted(tensors.keys() & loaded.keys()):
            raise UserError(f"{file.name} holds {twice[0]}, and so does another file", key=key, value=folder)
        tensors |= loaded
    if not tensors:
        raise UserError("holds no safetensors files", key=key, value=folder)
    known = _modules_of(folder)
    root = nn.Module()
    # Weights first: they tell the kind of their module.
    for name, tensor in sorted(tensors.items(), key=lambda item: not item[0].endswith(".weight")):
        # Integers that are no weights are positions and the like.
        if tensor.is_floating_point() or (tensor.dim() > 1 and name.endswith(".weight")):
            # Other types have no kernels for counting.
            is_plain = tensor.is_floating_point() and tensor.element_size() > 1
            _place(root, name, tensor if is_plain else tensor.float(), known)
    return root


def _modules_of(folder: Path) -> dict[str, nn.Module]:
    """The modules of the model by name, without weights; empty where the class is not known."""
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        made: Any = getattr(transformers, (config.architectures or [""])[0])
        with torch.device("meta"):
            return dict(made(config).named_modules())
    except Exception:  # libraries raise dozens of classes; the shapes still tell
        return {}


def _place(root: nn.Module, name: str, tensor: Tensor, known: Mapping[str, nn.Module]) -> None:
    """Register a tensor under its name, in a module of its kind."""
    *above, leaf = name.split(".")
    holder = root
    for place, part in enumerate(above, 1):
        inner = dict(holder.named_children()).get(part)
        if inner is None:
            path = ".".join(above[:place])
            inner = _kind_of(path, tensor, known) if place == len(above) and leaf == "weight" else nn.Module()
            holder.add_module(part, inner)
        holder = inner
    if leaf in holder._parameters:
        del holder._parameters[leaf]
    holder.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))


def _kind_of(path: str, weight: Tensor, known: Mapping[str, nn.Module]) -> nn.Module:
    """An empty module of the kind that a weight belongs to."""
    module = known.get(path)
    if module is not None and getattr(getattr(module, "weight", None), "shape", None) == weight.shape:
        if module_type(module) is None or list(module.children()):
            return nn.Module()
        return _without_parameters(module)
    with torch.device("meta"):
        if weight.dim() == 2 and not _TABLE.search(path):
            return _without_parameters(nn.Linear(weight.shape[1], weight.shape[0]))
        if convolution := _CONVOLUTIONS.get(weight.dim()):
            made: Any = convolution
            return _without_parameters(made(weight.shape[1], weight.shape[0], tuple(weight.shape[2:])))
    return nn.Module()


def _without_parameters(module: nn.Module) -> nn.Module:
    for name in list(module._parameters):
        module._parameters[name] = None
    return module
