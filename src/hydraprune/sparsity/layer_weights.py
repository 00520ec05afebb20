"""The weights of a model that pruners can take: those of layers, and packed ones by the names of their parameters."""

from __future__ import annotations

from torch import nn

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layouts import LAYOUTS, PACKED, Weight, module_type
from hydraprune.sparsity.shards import is_sharded, why_not_by_rows
from hydraprune.sparsity.wrappers import is_instance_of, named_modules, named_parameters

# How many dimensions a weight of each type has.
DIMENSIONS = {"Linear": 2, "Conv1D": 2, "Conv1d": 3, "Conv2d": 4}


def is_layer(module: nn.Module) -> bool:
    """Whether `module` is of a prunable type: not where it is only called so and holds such a layer instead."""
    if module_type(module) is None:
        return False
    return "weight" in module._parameters or not any(module_type(child) is not None for child in _inside(module))


def _inside(module: nn.Module) -> list[nn.Module]:
    return list(module.modules())[1:]


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The prunable layers of `model` by name, the head's included, without the words of wrappers."""
    return {name: module for name, module in named_modules(model) if is_layer(module)}


def parameters_beside_layers(model: nn.Module) -> dict[str, tuple[nn.Parameter, nn.Module]]:
    """Name -> (parameter, module) of the parameters of two or more dimensions that are no prunable layer's weight."""
    return {
        name: (parameter, module)
        for name, parameter, module in named_parameters(model)
        if parameter.ndim > 1 and not (is_layer(module) and name.rpartition(".")[2] == "weight")
    }


def packed_weight(name: str, parameter: nn.Parameter, kind: str, model: nn.Module) -> Weight:
    """A weight that is stored as `PACKED` says.

    Raises:
        SparsityError: it has another shape, or is none that a mask could be applied to in place.
    """
    layout, dimensions = PACKED[kind]
    if parameter.ndim != dimensions:
        cure = f"choose from {', '.join(PACKED)}"
        raise SparsityError(f"{name}: its shape {tuple(parameter.shape)} is not that of `{kind}`", cure=cure)
    if (unfit := _why_unmaskable(parameter, model)) is not None:
        raise SparsityError(f"{name}: {unfit[0]}", cure=unfit[1])
    return Weight(name, parameter, layout, packed=parameter.shape[0] if dimensions > 2 else 1, model=model)


def layer_weight(name: str, module: nn.Module, model: nn.Module) -> Weight:
    """The weight of a prunable layer.

    Raises:
        SparsityError: it is none that a mask could be applied to in place.
    """
    kind, weight = module_type(module), getattr(module, "weight", None)
    assert kind is not None
    if (unfit := _why_unfit(kind, weight, module, model)) is not None:
        reason, cure = unfit
        raise SparsityError(f"{name or 'the model'}: {reason}", cure=cure)
    assert isinstance(weight, nn.Parameter)
    groups = module.groups if isinstance(module, nn.Conv1d | nn.Conv2d) else 1
    return Weight(f"{name}.weight" if name else "weight", weight, LAYOUTS[kind], groups, model=model)


def _why_unfit(kind: str, weight: object, module: nn.Module, model: nn.Module) -> tuple[str, str] | None:
    """Why a weight cannot be masked in place, and what to do about it; None where it can."""
    if weight is None:
        return f"its class is called {type(module).__name__}, and it has no weight", "exclude it"
    if (unfit := _why_unmaskable(weight, model)) is not None:
        return unfit
    assert isinstance(weight, nn.Parameter)
    if weight.ndim != DIMENSIONS[kind]:
        return f"its weight has shape {tuple(weight.shape)}, which is not that of a {kind} layer", "exclude it"
    return None


def _why_unmaskable(weight: object, model: nn.Module) -> tuple[str, str] | None:
    """Why no mask could be applied to a weight of any kind, and what to do about it; None where one can."""
    if isinstance(weight, nn.parameter.UninitializedParameter):
        return "its weight has no shape yet (a lazy layer)", "run the model on one batch first"
    if _contains(model, "FullyShardedDataParallel"):
        return "FullyShardedDataParallel has flattened its weight, or may have", "shard by fully_shard, or exclude it"
    if not isinstance(weight, nn.Parameter):
        return "its weight is computed (parametrized), not a parameter", "exclude it"
    if is_sharded(weight) and (unfit := why_not_by_rows(weight)) is not None:
        return f"its weight {unfit}; pruners take those of fully_shard, of which each process holds rows", "exclude it"
    if not weight.is_floating_point():
        return f"its weight is of type {str(weight.dtype).removeprefix('torch.')} (quantized)", "exclude it"
    return None


def _contains(model: nn.Module, kind: str) -> bool:
    """Whether a module of `model` is an instance of a class of that name."""
    return any(is_instance_of(module, kind) for module in model.modules())
