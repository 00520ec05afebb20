"""The zeros of a saved model: a table of its layers, and whether a pattern holds."""

from __future__ import annotations

from collections import Counter

from torch import nn

from hydraprune.deploy.compact_model import is_compact, load_compact
from hydraprune.models.saved_weights import saved_model
from hydraprune.sparsity import LayerSparsity, Pattern, layer_sparsity, model_sparsity
from hydraprune.sparsity.layer_weights import parameters_beside_layers
from hydraprune.sparsity.patterns import shape_of
from hydraprune.sparsity.statistics import nonfinite_parameters, prunable_layers, zeros_of
from hydraprune.utils.hub_access import at_home


def checked_model(path: str, key: str) -> nn.Module:
    """The saved model of any kind at a path: see `saved_model`, and also one in a compact file.

    Args:
        key: of the path, for errors.

    Raises:
        UserError: it cannot be found or read.
    """
    return load_compact(path, key) if is_compact(at_home(path)) else saved_model(path, key)


def table(model: nn.Module) -> str:
    """Zeros and pattern of every linear and convolution layer, their totals, the zeros of packed weights, and
    parameters that are not finite.
    """
    layers = layer_sparsity(model)
    width = max((len(layer.name) for layer in layers), default=5)
    lines = [f"{'layer':<{width}}  {'shape':>14}  {'zeros':>12}  sparsity  pattern"]
    for layer in layers:
        shape = "x".join(map(str, layer.shape))
        lines.append(f"{layer.name:<{width}}  {shape:>14}  {layer.zeros:>12,}  {layer.sparsity:8.4f}  {layer.pattern}")
    zeros, total = sum(layer.zeros for layer in layers), sum(layer.total for layer in layers)
    sparse = [layer for layer in layers if layer.zeros]
    lines.append("")
    lines.append(f"all linear and convolution weights: {zeros:,} of {total:,} are zero ({zeros / max(1, total):.4f})")
    if sparse:
        inside, of = sum(layer.zeros for layer in sparse), sum(layer.total for layer in sparse)
        lines.append(f"layers with zeros: {inside:,} of {of:,} ({inside / of:.4f})")
    for name, (weight, module) in parameters_beside_layers(model).items():
        if not isinstance(module, nn.Embedding) and 0 < (empty := zeros_of(weight)) < weight.numel():
            share = f"{empty:,} of {weight.numel():,} are zero ({empty / weight.numel():.4f})"
            lines.append(f"{name}: {share}; no layer's weight, so no pattern is looked for")
    lines.append(f"all parameters: {model_sparsity(model):.4f} are zero")
    lines.append(f"patterns: {_patterns(layers)}")
    if broken := sorted(nonfinite_parameters(model)):
        lines.append(f"not finite: {len(broken)} parameters hold NaN or infinity, {broken[0]} among them")
    return "\n".join(lines)


def _patterns(layers: list[LayerSparsity]) -> str:
    counts = Counter(layer.pattern for layer in layers).most_common()
    return ", ".join(f"{pattern} in {count} layer{'' if count == 1 else 's'}" for pattern, count in counts)


def violations(model: nn.Module, pattern: Pattern) -> list[str]:
    """Layers with zeros in which `pattern` does not hold, each with the reason: a stray zero, or no fit."""
    broken = []
    for name, _, view in prunable_layers(model):
        keep = view != 0
        if bool(keep.all()):
            continue
        why = pattern.misfit(shape_of(keep))
        if why is not None:
            broken.append(f"{name}: {why}")
        elif not pattern.legal(keep):
            broken.append(f"{name}: has zeros outside whole {pattern.name} units")
    return broken
