"""Linear layers computed by the kernels, in the place of those of any model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hydraprune.deploy.fused_encoder import refuse_tracing
from hydraprune.errors import UserError
from hydraprune.kernels.compiled import Compiled
from hydraprune.kernels.linears import LinearKernel
from hydraprune.kernels.packing import pack, unpack


class SparseLinear(nn.Module):
    """A linear layer of which the zeros are not computed. It computes no gradients.

    Args:
        linear: an `nn.Linear`, or transformers' `Conv1D`, whose weight is [inputs, outputs].
    """

    def __init__(self, linear: nn.Linear | Conv1D, compiled: Compiled) -> None:
        super().__init__()
        weight = linear.weight.T if isinstance(linear, Conv1D) else linear.weight
        outputs, inputs = map(int, weight.shape)
        self.out_features, self.in_features = outputs, inputs
        self.kernel = LinearKernel(pack(weight, linear.bias), compiled)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features], of the type of `x`.

        Raises:
            UserError: a gradient of `x` is wanted, or this is a trace.
        """
        refuse_tracing()
        if x.requires_grad and torch.is_grad_enabled():
            raise UserError("an accelerated model computes no gradients", cure="use the model that it was made from")
        return self.kernel(x).to(x.dtype)

    @property
    def weight(self) -> Tensor:
        """[out_features, in_features], made when asked for: some models look at the weights of their layers."""
        return unpack(self.kernel.packed)

    @property
    def bias(self) -> Tensor:
        """[out_features]."""
        return self.kernel.packed.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def replace_linears(model: nn.Module, compiled: Compiled, most: float) -> int:
    """Replace the linear layers of a model of which at most a share `most` of the weights is left; returns how many."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, Conv1D) and module.weight.count_nonzero() <= most * module.weight.numel()
    ]
    for name, linear in found:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, SparseLinear(linear, compiled))
    return len(found)
