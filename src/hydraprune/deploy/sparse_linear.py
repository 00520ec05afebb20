"""Linear layers computed by the kernels, in the place of those of any model."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hydraprune.kernels.compiled import Compiled
from hydraprune.kernels.linears import LinearKernel
from hydraprune.kernels.packing import pack


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
        """[..., in_features] -> [..., out_features], of the type of `x`."""
        return self.kernel(x).to(x.dtype)

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
