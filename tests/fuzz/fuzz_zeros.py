"""Check of a saved model's zeros against its config, counted with numpy and without code of hydraprune."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors.numpy import load_file

Weights = Mapping[str, NDArray[np.float32]]
_ROLES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
}
_GROUPS = {"attention": ("query", "key", "value"), "ffn": ("ffn_in", "ffn_out")}
# Criteria that revive units at an update: a revived unit may still be zero at the end.
_REVIVING = ("Gradient", "Movement", "SoftMovement", "Platon", "Rigl", "SrSte")
# Methods that prune every layer to the target, whatever the scope.
_EVERY_LAYER = ("Wanda", "SparseGpt")


@dataclass(frozen=True)
class Layer:
    """The units of one weight, of one attention for heads, or of one feed-forward network for its channels.

    Args:
        empty: number of zero units.
        loose: zeros outside of zero units that the model did not start with.
        more: zeros of pruned N:M groups beyond those of the pattern.
    """

    units: int
    empty: int
    zeros: int
    loose: int
    size: int
    more: int = 0


def check(folder: Path, start: Weights | None) -> int:
    """Check a finished run's model against its config and report; returns the number of pruned units.

    Args:
        start: weights that the run started from, if they had zeros.

    Raises:
        AssertionError: zeros are missing, superfluous or in the wrong place, or the report is wrong.
    """
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    shape = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "model" / "model.safetensors")
    assert report["status"] == "finished", report
    assert report["pattern_ok"] is True, report["parts"]
    nodes = config["pattern"].get("parts") or {}
    if not nodes and "Dense" not in (kind := _kind(config["pattern"]).title()):
        nodes = {next(iter(report["parts"])): config["pattern"]}
        assert kind != "Mixed"
    counts = {name: _part(report["parts"][name], node, config, weights, start, shape) for name, node in nodes.items()}
    assert set(counts) == set(report["parts"])
    assert sum(counts.values()) == report["units"]["pruned"]
    return sum(counts.values())


def _kind(node: Mapping[str, Any]) -> str:
    return str(node["_target_"]).rsplit(".", 1)[-1]


def _part(
    reported: Mapping[str, Any],
    node: Mapping[str, Any],
    config: Mapping[str, Any],
    weights: Weights,
    start: Weights | None,
    shape: Mapping[str, Any],
) -> int:
    layers_of = node.get("layers") or {}
    if _kind(node) == "heads" and not (layers_of.get("roles") or layers_of.get("include")):
        layers_of = {**layers_of, "roles": list(_ROLES)[:4]}
    if _kind(node) == "ffn_channels" and not (layers_of.get("roles") or layers_of.get("include")):
        layers_of = {**layers_of, "roles": list(_ROLES)[4:]}
    names = chosen(layers_of, weights)
    assert sorted(names) == sorted(reported["weights"]), (names, reported["weights"])
    if _kind(node) == "lock":
        assert start is not None
        for name in names:
            assert ((weights[name] == 0) == (start[name] == 0)).all(), f"lock: other zeros in {name}"
        return int(reported["units"]["pruned"])
    layers = _layers(node, names, weights, start, int(shape["num_attention_heads"]))
    units, empty = sum(layer.units for layer in layers), sum(layer.empty for layer in layers)
    goal, own = (
        _goal(node, config, layers),
        {key: config[key] | _given(node.get(key)) for key in ("pruner", "regularizer")},
    )
    erk = node.get("scope") == "erk" and not _every_layer(own)
    assert reported["units"]["target"] in range(goal - len(layers) if erk else goal, goal + 1), (reported, goal)
    assert (reported["units"]["pruned"], reported["units"]["total"]) == (empty, units), (reported, empty, units)
    assert empty >= reported["units"]["target"], (reported, empty)
    assert sum(layer.loose for layer in layers) == 0, f"{_kind(node)}: zeros outside whole units: {layers}"
    assert reported["sparsity"] == sum(layer.zeros for layer in layers) / sum(layer.size for layer in layers)
    if start is None and _kind(own["regularizer"]) == "Unregularized" and _kind(own["pruner"]) not in _REVIVING:
        assert empty == reported["units"]["target"], f"{empty} pruned, {reported['units']['target']} asked for"
        assert not any(layer.more for layer in layers), layers
        share = _share(node)
        for layer in layers:
            least, most = (Fraction(str(node.get(key, other))) / share for key, other in (("floor", 0), ("cap", 0.98)))
            assert int(layer.units * least) <= layer.empty <= layer.units * min(Fraction(1), most), (layer, least, most)
    return empty


def _given(node: Any) -> dict[str, Any]:
    return {key: value for key, value in (node or {}).items() if value is not None}


def chosen(layers: Mapping[str, Any], weights: Weights) -> list[str]:
    """The weights that a choice of layers selects; BERT's encoder has linear layers only."""
    inside = {n: n.removesuffix(".weight") for n in weights if re.search(r"encoder\.layer\.\d+\..*\.weight$", n)}
    inside = {name: layer for name, layer in inside.items() if weights[name].ndim == 2}
    roles = [role for word in _list(layers.get("roles")) for role in _GROUPS.get(word, (word,))]
    include, exclude = _list(layers.get("include")), _list(layers.get("exclude"))
    return [
        name
        for name, layer in inside.items()
        if (
            any(re.search(rf"layer\.\d+\.{re.escape(_ROLES[role])}$", layer) for role in roles)
            or any(re.search(expression, layer) for expression in include)
            or not (roles or include)
        )
        and not any(re.search(expression, layer) for expression in exclude)
    ]


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _layers(
    node: Mapping[str, Any], names: list[str], weights: Weights, start: Weights | None, heads: int
) -> list[Layer]:
    before = {name: np.zeros(weights[name].shape, bool) if start is None else start[name] == 0 for name in names}
    if _kind(node) == "heads":
        blocks: dict[str, list[str]] = {}
        for name in names:
            blocks.setdefault(name.split(".attention.")[0], []).append(name)
        return [_coupled(members, weights, before, heads) for members in blocks.values()]
    if _kind(node) == "ffn_channels":
        networks = [[name, name.replace("intermediate.dense", "output.dense")] for name in names if "intermed" in name]
        return [_coupled(members, weights, before, len(weights[members[0]]) // node["size"]) for members in networks]
    return [_layer(node, weights[name], before[name]) for name in names]


def _layer(node: Mapping[str, Any], weight: NDArray[np.float32], before: NDArray[np.bool_]) -> Layer:
    rows, columns = weight.shape
    alive = weight != 0
    if _kind(node) == "n_of_m":
        groups = alive.reshape(-1, node["of"])
        gone = groups.sum(1) <= node["keep"]
        inside = np.repeat(gone, node["of"]).reshape(weight.shape)
    else:
        height = rows if node["rows"] == "channel" else int(node["rows"])
        width = columns if node["cols"] == "channel" else int(node["cols"])
        tiles = alive.reshape(rows // height, height, columns // width, width)
        empty = ~tiles.any((1, 3))
        gone = empty.reshape(-1)
        inside = np.repeat(np.repeat(empty, height, 0), width, 1)
    loose = int((~alive & ~inside & ~before).sum())
    more = int((node["keep"] - groups[gone].sum(1)).sum()) if _kind(node) == "n_of_m" else 0
    return Layer(gone.size, int(gone.sum()), int((~alive).sum()), loose, weight.size, more)


def _coupled(names: list[str], weights: Weights, before: Mapping[str, NDArray[np.bool_]], units: int) -> Layer:
    by_unit = [  # [units, rows of a unit, columns], transposed where a unit has columns
        part.reshape(units, -1, part.shape[1])
        for name in names
        for part in [(weights[name].T if "output.dense" in name else weights[name]) != 0]
    ]
    gone = ~np.stack([part.any((1, 2)) for part in by_unit]).any(0)
    zeros = sum(int((weights[name] == 0).sum()) for name in names)
    known = sum(int(((weights[name] == 0) & before[name]).sum()) for name in names)
    whole = sum(int(part[gone].size) for part in by_unit)
    return Layer(
        units, int(gone.sum()), zeros, max(0, zeros - whole - known), sum(weights[name].size for name in names)
    )


def _share(node: Mapping[str, Any]) -> Fraction:
    return Fraction(node["of"] - node["keep"], node["of"]) if _kind(node) == "n_of_m" else Fraction(1)


def _every_layer(own: Mapping[str, Any]) -> bool:
    return _kind(own["pruner"]) in _EVERY_LAYER


def _goal(node: Mapping[str, Any], config: Mapping[str, Any], layers: list[Layer]) -> int:
    """The number of units to prune: floor(units * target / share), over all layers or in each."""
    share, own = _share(node), {"pruner": config["pruner"] | _given(node.get("pruner"))}
    typed = node.get("target_sparsity")
    target = share if typed is None else Fraction(str(typed))
    if node.get("scope") == "local" or _every_layer(own):
        return sum(int(layer.units * target / share) for layer in layers)
    return int(sum(layer.units for layer in layers) * target / share)
