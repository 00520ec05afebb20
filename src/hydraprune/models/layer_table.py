"""The layer table: what pruners take of a model, by role, and which of its large weights stay dense."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hydraprune.sparsity.coverage import Coverage
from hydraprune.sparsity.layers import Family

# Weights of a smaller share of the parameters are summed up.
_LEAST_SHARE = 0.001


@dataclass(frozen=True)
class LayerRow:
    """Weights whose names differ in numbers alone, of one shape.

    Args:
        layers: their name, with `*` for numbers that differ.
        role: see `roles_of`; for weights that stay dense the reason, as in `DenseWeight`.
        count: how many.
        shape: of each.
        parameters: of all.
        taken: whether a pruner takes them.
    """

    layers: str
    role: str
    count: int
    shape: tuple[int, ...]
    parameters: int
    taken: bool


def layer_table(coverage: Coverage, family: Family) -> list[LayerRow]:
    """The weights of two or more dimensions of a model, in its order; those that pruners take first."""
    taken = [(w.name, w.shape, w.parameters, family.role_of(w.name.removesuffix(".weight"))) for w in coverage.pruned]
    rows = _rows([(name, shape, size, role or "-") for name, shape, size, role in taken], True)
    return rows + _rows([(w.name, w.shape, w.parameters, w.reason) for w in coverage.dense], False)


def _rows(weights: Sequence[tuple[str, tuple[int, ...], int, str]], taken: bool) -> list[LayerRow]:
    groups: dict[tuple[str, str, tuple[int, ...]], list[tuple[str, int]]] = {}
    for name, shape, size, role in weights:
        key = re.sub(r"(?<=\.)\d+(?=\.)", "*", name), role, shape
        groups.setdefault(key, []).append((name, size))
    return [
        LayerRow(
            (pattern if len(found) > 1 else found[0][0]).removesuffix(".weight"),
            *(role, len(found), shape, sum(size for _, size in found), taken),
        )
        for (pattern, role, shape), found in groups.items()
    ]


def format_table(coverage: Coverage, family: Family) -> str:
    """The layer table as text: a line for each row, and the sums. Small weights that stay dense are one line."""
    rows = layer_table(coverage, family)
    least = _LEAST_SHARE * coverage.parameters
    shown = [row for row in rows if row.taken or row.parameters >= least]
    small = sum(row.parameters for row in rows if row not in shown) + coverage.small
    cells = [("role", "layers", "shape", "parameters", "name")]
    dense = [("stays dense", "", "", "", "")]
    for row in shown:
        line = (row.role, f"{row.count}", "x".join(map(str, row.shape)), f"{row.parameters:,}", row.layers)
        (cells if row.taken else dense).append(line)
    if small:
        dense.append(("small", "", "", f"{small:,}", "biases, normalisation and the like"))
    table = [*cells, *dense] if len(dense) > 1 else cells
    widths = [max(len(line[place]) for line in table) for place in range(4)]
    lines = [_line(line, widths) for line in table]
    lines.append("")
    lines.append(f"prunable: {coverage.covered:,} of {coverage.parameters:,} parameters ({coverage.share:.1%})")
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    role, count, shape, parameters, name = cells
    return (
        f"{role:<{widths[0]}}  {count:>{widths[1]}}  {shape:>{widths[2]}}  {parameters:>{widths[3]}}  {name}".rstrip()
    )
