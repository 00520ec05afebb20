"""LoRA adapters on a pruned model: their updates are masked as the weights are. Works with the package `peft`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from hydraprune.sparsity import Pruner, SparsityError


class MaskedAdapters:
    """The adapters of a model, which learn updates of live weights alone; as made by `mask_adapters`."""

    def __init__(self, handles: Sequence[Any], pruners: Sequence[Pruner]) -> None:
        self._handles, self._pruners = list(handles), tuple(pruners)

    def merge(self, model: Any) -> nn.Module:
        """The model with its adapters merged into its weights, in which what was pruned is zero.

        Its outputs are those of the model with adapters, up to rounding.

        Args:
            model: the `PeftModel`.
        """
        self.remove()
        merged: nn.Module = model.merge_and_unload()
        for pruner in self._pruners:
            pruner.apply_to(merged)
        return merged

    def remove(self) -> None:
        """Let the adapters compute as peft does."""
        for handle in self._handles:
            handle.remove()


def mask_adapters(model: nn.Module, pruners: Sequence[Pruner]) -> MaskedAdapters:
    """Mask the updates of the LoRA adapters of a model that was pruned before they were added.

    An adapter adds x A^T B^T s to what its layer W gives; merged, W + s B A would have no zeros. With the mask M the
    layer computes x (W + M * s B A)^T instead, which costs one product of the size of W for each call.

        pruners[0].project(0)                       # or a training that ends at the target
        model = get_peft_model(model, LoraConfig(...))
        adapters = mask_adapters(model, pruners)
        ...                                         # train
        model = adapters.merge(model)               # zeros where they were

    Args:
        model: as `get_peft_model` returned it.
        pruners: of the model inside; their masks are final.

    Raises:
        SparsityError: no adapter is on a pruned weight; or one is not plain LoRA without dropout on a linear layer.
    """
    masks = {
        id(weight.parameter): (weight, pruner.masks_in_force[weight.name])
        for pruner in pruners
        for weight in pruner.weights
        if weight.name in pruner.masks_in_force
    }
    handles = []
    for name, module in model.named_modules():
        base: Any = getattr(module, "base_layer", None)
        held = masks.get(id(getattr(base, "weight", None)))
        if held is None:
            continue
        weight, mask = held
        if why := _misfit(module, weight.layout.linear):
            raise SparsityError(f"{name}: {why}")
        handles.append(module.register_forward_hook(_correction(~mask, base)))
    if not handles:
        raise SparsityError(
            "no adapter of the model is on a weight that these pruners mask",
            cure="prune the model first, add adapters to its pruned layers, and give the model with adapters",
        )
    return MaskedAdapters(handles, pruners)


def _misfit(module: Any, is_linear: bool) -> str | None:
    """Why the updates of an adapter cannot be masked; None if they can."""
    if not hasattr(module, "lora_A") or not hasattr(module, "get_delta_weight") or not is_linear:
        return "is no LoRA adapter of a linear layer"
    if getattr(module, "lora_variant", None):
        return "is a variant of LoRA, whose update is not B A alone"
    if any(not isinstance(dropout, nn.Identity) for dropout in module.lora_dropout.values()):
        return "its update is not one of weights, since it drops inputs at random: give LoraConfig(lora_dropout=0.0)"
    if module.merged:
        return "is merged already"
    return None


def _correction(pruned: Tensor, base: nn.Module) -> Any:
    """A forward hook that takes out what the update of pruned weights adds."""
    is_transposed = not isinstance(base, nn.Linear)  # Hugging Face's Conv1D

    def corrected(module: Any, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        active = [name for name in module.active_adapters if name in module.lora_A]
        if module.disable_adapters or module.merged or not active:
            return output
        x = arguments[0]
        for name in active:
            update = module.get_delta_weight(name) * pruned.to(x.device)
            wrong = update.to(x.dtype)
            output = output - (x @ wrong if is_transposed else F.linear(x, wrong)).to(output.dtype)
        return output

    return corrected
