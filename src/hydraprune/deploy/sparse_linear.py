"""Linear layers computed by the kernels, in the place of those of any model."""

from __future__ import annotations

from torch import Tensor, nn

from hydraprune.kernels.compiled import Compiled
from hydraprune.kernels.linears import LinearKernel
from hydraprune.kernels.packing import pack


class SparseLinear(nn.Module):
    """A linear layer of which the zeros are not computed. It computes no gradients."""

    def __init__(self, linear: nn.Linear, compiled: Compiled) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.kernel = LinearKernel(pack(linear.weight, linear.bias), compiled)

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
        if type(module) is nn.Linear and module.weight.count_nonzero() <= most * module.weight.numel()
    ]
    for name, linear in found:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, SparseLinear(linear, compiled))
    return len(found)
