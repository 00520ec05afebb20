"""Mask crops of models that are written here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from hydraprune.results.mask_crops import COLUMNS, ROWS, MaskCrop, mask_crops

QUERY, KEY = "layer.0.query.weight", "layer.1.key.weight"
Mask = NDArray[np.bool_]


def mask_of(pattern: str, rows: int, columns: int, zeros: float, seed: int = 0) -> Mask:
    """A mask that obeys its pattern, and no rule that is stricter."""
    chance = np.random.default_rng(seed)
    if pattern == "2:4":
        order = chance.random((rows, columns // 4, 4)).argsort(axis=2)
        return (order < 2).reshape(rows, columns)
    if pattern == "1xchannel":
        return np.repeat(chance.random((rows, 1)) >= zeros, columns, axis=1)
    return np.repeat(chance.random((rows // 4, columns)) >= zeros, 4, axis=0)


def has_pattern(pattern: str, kept: Mask) -> bool:
    rows, columns = kept.shape
    if pattern == "2:4":
        return bool((kept.reshape(rows, -1, 4).sum(axis=2) == 2).all())
    if pattern == "1xchannel":
        return bool((kept.all(axis=1) | ~kept.any(axis=1)).all())
    blocks = kept.reshape(-1, 4, columns)
    return bool((blocks.all(axis=1) | ~blocks.any(axis=1)).all())


def weight_of(mask: Mask) -> NDArray[np.float32]:
    """Weights that are zero where the mask is, some of either sign."""
    values = np.random.default_rng(1).normal(size=mask.shape).astype(np.float32)
    return np.where(mask, np.where(values == 0, 1, values), -0.0).astype(np.float32)


def saved(model: Path, masks: dict[str, Mask], file: str = "model.safetensors") -> Path:
    model.mkdir(parents=True, exist_ok=True)
    save_file({name: weight_of(mask) for name, mask in masks.items()}, model / file)
    return model


def part_of(pattern: str, *names: str, sparsity: float = 0.5) -> dict[str, Any]:
    """A pruner's part of a report."""
    return {"pattern": pattern, "weights": list(names), "sparsity": sparsity}


def one(model: Path, part: dict[str, Any]) -> MaskCrop:
    (found,) = mask_crops(model, {"it": part})
    return found


def sparsity_of(mask: Mask) -> float:
    return float(np.count_nonzero(~mask)) / mask.size


@pytest.mark.parametrize("pattern", ["4x1", "2:4", "1xchannel"])
def test_a_crop_is_a_piece_of_the_mask_and_has_its_pattern(pattern: str, tmp_path: Path) -> None:
    mask = mask_of(pattern, 5 * ROWS, 3 * COLUMNS, 0.6)
    found = one(saved(tmp_path, {QUERY: mask}), part_of(pattern, QUERY, sparsity=0.6))
    assert (found.pruner, found.pattern, found.weight) == ("it", pattern, QUERY)
    assert found.kept.shape == (ROWS, COLUMNS)
    assert found.kept.dtype == bool
    assert np.array_equal(found.kept, mask[found.top : found.top + ROWS, found.left : found.left + COLUMNS])
    assert has_pattern(pattern, found.kept)
    assert 0 < found.kept.mean() < 1
    assert found.sparsity == pytest.approx(sparsity_of(mask))


def test_a_crop_is_typical_of_its_layer(tmp_path: Path) -> None:
    """Empty at the top, full at the bottom, and one corner as sparse as the whole."""
    mask = np.zeros((4 * ROWS, 2 * COLUMNS), dtype=bool)
    mask[2 * ROWS :] = True
    mask[ROWS : ROWS + ROWS // 2, COLUMNS:] = True
    mask[2 * ROWS : 2 * ROWS + ROWS // 2, :COLUMNS] = False
    assert sparsity_of(mask) == pytest.approx(0.5)
    found = one(saved(tmp_path, {QUERY: mask}), part_of("4x1", QUERY))
    assert (found.top, found.left) in [(ROWS, COLUMNS), (2 * ROWS, 0)]
    assert sparsity_of(found.kept) == pytest.approx(0.5)


def test_the_layer_has_the_sparsity_nearest_to_its_pruner(tmp_path: Path) -> None:
    masks = {QUERY: mask_of("4x1", 48, 80, 0.9), KEY: mask_of("4x1", 48, 80, 0.5, seed=1)}
    saved(tmp_path, masks)
    for name, sparsity in ((QUERY, 0.88), (KEY, 0.55)):
        assert one(tmp_path, part_of("4x1", QUERY, KEY, sparsity=sparsity)).weight == name
    # Only of the weights that the pruner had.
    assert one(tmp_path, part_of("4x1", KEY, sparsity=0.9)).weight == KEY


@pytest.mark.parametrize("shape", [(8, 16), (8, 200), (100, 16), (ROWS, COLUMNS), (1, 1)])
def test_a_weight_smaller_than_the_crop(shape: tuple[int, int], tmp_path: Path) -> None:
    mask = np.random.default_rng(2).random(shape) < 0.5
    found = one(saved(tmp_path, {QUERY: mask}), part_of("1x1", QUERY))
    assert found.kept.shape == (min(shape[0], ROWS), min(shape[1], COLUMNS))
    height, width = found.kept.shape
    assert np.array_equal(found.kept, mask[found.top : found.top + height, found.left : found.left + width])


def test_a_convolution_is_seen_as_a_matrix_of_its_output_channels(tmp_path: Path) -> None:
    kept = np.random.default_rng(3).random((8, 4, 3)) < 0.5
    assert np.array_equal(one(saved(tmp_path, {QUERY: kept}), part_of("1x1", QUERY)).kept, kept.reshape(8, 12))


def test_missing_models_and_layers_give_no_crop(tmp_path: Path) -> None:
    assert mask_crops(tmp_path / "no" / "such", {"4x1": part_of("4x1", QUERY)}) == []
    (tmp_path / "empty").mkdir()
    assert mask_crops(tmp_path / "empty", {"4x1": part_of("4x1", QUERY)}) == []
    model = saved(tmp_path / "model", {QUERY: mask_of("4x1", 48, 80, 0.5)})
    assert mask_crops(model, {}) == []
    assert mask_crops(model, {"4x1": part_of("4x1", "other.weight")}) == []
    assert mask_crops(model, {"4x1": part_of("4x1")}) == []
    # One pruner's layers are there, the other's are not.
    found = mask_crops(model, {"a": part_of("4x1", "other.weight"), "b": part_of("4x1", "other.weight", QUERY)})
    assert [(crop.pruner, crop.weight) for crop in found] == [("b", QUERY)]


@pytest.mark.parametrize("size", [0, 4, 100, 5000])
def test_an_incomplete_file_gives_no_crop(size: int, tmp_path: Path) -> None:
    model = saved(tmp_path, {QUERY: mask_of("4x1", 48, 80, 0.5)})
    content = (model / "model.safetensors").read_bytes()
    assert len(content) > size
    (model / "model.safetensors").write_bytes(content[:size])
    assert mask_crops(model, {"4x1": part_of("4x1", QUERY)}) == []
    saved(model, {KEY: mask_of("4x1", 48, 80, 0.5)}, "whole.safetensors")
    assert one(model, part_of("4x1", QUERY, KEY)).weight == KEY


def test_other_files_of_that_name_give_no_crop(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    (tmp_path / "more.safetensors").write_text("this is no tensor, and long enough to have a header")
    assert mask_crops(tmp_path, {"4x1": part_of("4x1", QUERY)}) == []


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn])
def test_types_that_numpy_lacks_give_no_crop(kind: torch.dtype, tmp_path: Path) -> None:
    save_torch({QUERY: torch.ones(48, 80).to(kind)}, tmp_path / "model.safetensors")
    assert mask_crops(tmp_path, {"4x1": part_of("4x1", QUERY)}) == []


def test_half_precision_is_read(tmp_path: Path) -> None:
    mask = mask_of("4x1", ROWS, COLUMNS, 0.5)
    save_file({QUERY: weight_of(mask).astype(np.float16)}, tmp_path / "model.safetensors")
    assert np.array_equal(one(tmp_path, part_of("4x1", QUERY)).kept, mask)


def test_several_files_and_several_pruners(tmp_path: Path) -> None:
    masks = {QUERY: mask_of("4x1", ROWS, COLUMNS, 0.7), KEY: mask_of("2:4", ROWS, COLUMNS, 0.5)}
    for number, (name, mask) in enumerate(masks.items()):
        saved(tmp_path, {name: mask}, f"model-{number}.safetensors")
    found = mask_crops(tmp_path, {"attention": part_of("4x1", QUERY, sparsity=0.7), "ffn": part_of("2:4", KEY)})
    assert [(crop.pruner, crop.pattern, crop.weight) for crop in found] == [
        ("attention", "4x1", QUERY),
        ("ffn", "2:4", KEY),
    ]
    for crop in found:
        assert np.array_equal(crop.kept, masks[crop.weight])


def test_the_crop_is_always_the_same(tmp_path: Path) -> None:
    masks = {name: mask_of("4x1", 4 * ROWS, 4 * COLUMNS, 0.8, seed) for seed, name in enumerate((QUERY, KEY))}
    saved(tmp_path / "a", masks)
    saved(tmp_path / "b", dict(reversed(masks.items())))
    crops = [one(tmp_path / model, part_of("4x1", QUERY, KEY, sparsity=0.8)) for model in ("a", "a", "b")]
    for crop in crops[1:]:
        assert (crop.weight, crop.top, crop.left) == (crops[0].weight, crops[0].top, crops[0].left)
        assert np.array_equal(crop.kept, crops[0].kept)
