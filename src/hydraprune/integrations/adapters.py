"""LoRA adapters on a pruned model: their updates are masked as the weights are. Works with the package `peft`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    An adapter adds x A^T B^T s to the output of its layer W. Merged, W + s B A would have no zeros where W has them.
    With the mask M the layer computes x (W + M * s B A)^T instead, which costs a product of the size of W in each call,
    and memory for one matrix like W.

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
        id(weight.parameter): masks[weight.name]
        for pruner in pruners
        for masks in [pruner.masks_in_force]
        for weight in pruner.weights
        if weight.name in masks
    }
    handles = []
    for name, module in model.named_modules():
        base: Any = getattr(module, "base_layer", None)
        held = [masks[id(p)] for p in base.parameters() if id(p) in masks] if isinstance(base, nn.Module) else []
        if not held:
            continue
        if why := _misfit(module, base):
            raise SparsityError(f"{name}: {why}")
        handles.append(module.register_forward_hook(_Correction(~held[0], base), with_kwargs=True))
    if not handles:
        raise SparsityError(
            "no adapter of the model is on a weight that these pruners mask",
            cure="prune the model first, add adapters to its pruned layers, and give the model with adapters",
        )
    return MaskedAdapters(handles, pruners)


def _is_transposed(base: Any) -> bool:
    """Whether a layer is Hugging Face's `Conv1D`, which stores [in, out]."""
    return type(base).__name__ == "Conv1D"


def _misfit(module: Any, base: Any) -> str | None:
    """Why the updates of an adapter cannot be masked; None if they can."""
    is_linear = type(base) is nn.Linear or _is_transposed(base)
    if not hasattr(module, "lora_A") or not hasattr(module, "get_delta_weight") or not is_linear:
        return "is no LoRA adapter of a linear layer"
    if getattr(module, "lora_variant", None):
        return "is a variant of LoRA, whose update is not B A alone"
    if any(not isinstance(dropout, nn.Identity) for dropout in module.lora_dropout.values()):
        return "its update is not one of weights, since it drops inputs at random: give LoraConfig(lora_dropout=0.0)"
    if module.merged:
        return "is merged already"
    return None


class _Correction:
    """A forward hook that takes out what the updates of pruned weights add to the output.

    Args:
        pruned: like the layer's weight, True where it is masked.
        base: the layer.
    """

    def __init__(self, pruned: Tensor, base: nn.Module) -> None:
        self._pruned, self._is_transposed = pruned, _is_transposed(base)

    def __call__(self, module: Any, arguments: tuple[Any, ...], named: Mapping[str, Any], output: Tensor) -> Tensor:
        if named.get("adapter_names") is not None:
            raise SparsityError("adapters that differ within a batch are not masked", cure="leave adapter_names out")
        active = [name for name in module.active_adapters if name in module.lora_A]
        if module.disable_adapters or module.merged or not active:
            return output
        x = arguments[0] if arguments else named["x"]
        if self._pruned.device != x.device:  # once: the model was moved
            self._pruned = self._pruned.to(x.device)
        update = sum(module.get_delta_weight(name) for name in active) * self._pruned
        wrong = x @ update.to(x.dtype) if self._is_transposed else F.linear(x, update.to(x.dtype))
        return output - wrong.to(output.dtype)
