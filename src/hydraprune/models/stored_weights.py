"""What the files of a checkpoint hold for the weights of its model: one weight twice, or numbers that are no floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from hydraprune.utils.weights_files import loaded_files, stored_types

# The types of safetensors that are loaded as they are. Others, integers and floats of 8 bits, are steps of a scale.
_FLOATS = {"F64", "F32", "F16", "BF16"}


def stored_misfit(folder: Path, blueprint: Callable[[], nn.Module]) -> tuple[str, str] | None:
    """Why the safetensors files of a checkpoint cannot be loaded as they are, and a cure; None if they can.

    A weight that occurs twice would be loaded from one of the two places. It does so if two files hold its name, or if
    transformers gives one name to two that are stored, such as `LayerNorm.gamma` and `LayerNorm.weight`. Only headers
    are read. Files of other kinds are not looked at.

    Args:
        folder: of the checkpoint.
        blueprint: makes the model; its weights are not used.

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    places = [(name, kind, file) for file in loaded_files(folder) for name, kind in stored_types(folder / file)]
    if not places:
        return None
    seen: dict[str, str] = {}
    for name, _, file in places:
        if name in seen:
            where = f"in {seen[name]} and in {file}" if seen[name] != file else f"twice in {file}"
            return f"the weight {name} is stored {where}", "remove one of the two"
        seen[name] = file
    model = blueprint()
    loaded_as = _loaded_names(model, list(seen))
    first: dict[str, str] = {}
    for name, target in loaded_as.items():
        if target in first:
            return f"{first[target]} and {name} are both stored, and are the same weight", "remove one of the two"
        first[target] = name
    parameters = {name for name, _ in model.named_parameters()}
    if steps := [(name, kind) for name, kind, _ in places if kind not in _FLOATS and loaded_as.get(name) in parameters]:
        name, kind = steps[0]
        more = f" (and {len(steps) - 1} more)" if len(steps) > 1 else ""
        return (
            f"{name} is stored as {kind}{more}: quantized weights without their scales",
            "give weights that are floats",
        )
    return None


def _loaded_names(model: nn.Module, names: Sequence[str]) -> dict[str, str]:
    """Name in a file -> name of the model's weight; without those that are converted, of which several make one."""
    if not isinstance(model, PreTrainedModel):
        return {name: name for name in names}
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    state = model.state_dict()
    renamed = {name: rename_source_key(name, renamings, converters, model.base_model_prefix, state) for name in names}
    return {name: target for name, (target, converter) in renamed.items() if converter is None}
