"""Up to which density the kernels are used: what follows from measured times, and their record."""

from __future__ import annotations

import json
import multiprocessing
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from live_layer_helpers import trainable
from trained_layer_helpers import training_kernels

from hydraprune.models import switch_density as module
from hydraprune.models.live_layers import LiveLayers
from hydraprune.models.switch_density import LayerTimes, Workload, measure, switch_density
from hydraprune.utils.cache import Cache

SHORT = Workload(2, 16, "fp32", trains=True)
SECONDS = st.floats(1e-5, 10.0)


def layers_of(model: Any) -> LiveLayers:
    return LiveLayers(model.base_model, training_kernels())


@given(SECONDS, SECONDS, SECONDS)
def test_at_the_density_the_kernels_are_faster(dense: float, whole: float, sparse: float) -> None:
    density = LayerTimes(dense, whole, sparse).switch_density
    assert 0 <= density <= 1
    if 0 < density < 1:
        expected = sparse + (whole - sparse) * (density - 0.1) / 0.9  # linear in the density
        assert expected <= 0.95 * dense * (1 + 1e-9)
    assert (density == 1) == (whole <= 0.95 * dense)


@pytest.mark.parametrize(
    ("times", "density"),
    [
        (LayerTimes(1.0, 0.5, 0.1), 1.0),
        (LayerTimes(1.0, 0.95, 0.2), 1.0),
        (LayerTimes(1.0, 1.9, 0.1), 0.5),
        (LayerTimes(1.0, 2.0, 0.96), 0.0),
        (LayerTimes(1.0, 1.0, 1.0), 0.0),
    ],
)
def test_densities(times: LayerTimes, density: float) -> None:
    assert times.switch_density == density


@given(st.integers(1, 4096), st.floats(0.0, 5000.0))
def test_workloads_are_small(batch_size: int, tokens: float) -> None:
    found = Workload.like(batch_size, tokens, "fp32", trains=False)
    assert 1 <= found.examples <= batch_size
    assert found.tokens % 16 == 0
    assert found.examples * found.tokens <= 512


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_measuring_leaves_no_trace(kind: str, trains: bool) -> None:
    model = trainable(kind)
    layers, mode = layers_of(model), [each.training for each in model.modules()]
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    random = torch.get_rng_state()
    times = measure(layers, Workload(2, 16, "fp32", trains), nullcontext)
    assert min(times.torch, times.whole, times.sparse) > 0
    assert torch.equal(random, torch.get_rng_state())
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert mode == [each.training for each in model.modules()]


def cache_in(folder: Path, max_gb: float = 1.0) -> Cache:
    return Cache(folder, max_gb)


def test_times_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter([LayerTimes(1.0, 1.9, 0.1), LayerTimes(1.0, 0.5, 0.1), LayerTimes(1.0, 2.0, 0.96)])
    monkeypatch.setattr(module, "measure", lambda *_: next(measured))
    layers, cache = layers_of(trainable("bert")), cache_in(tmp_path)
    assert switch_density(layers, SHORT, nullcontext, cache) == 0.5
    assert switch_density(layers, SHORT, nullcontext, cache) == 0.5
    (record,) = cache.files()
    assert json.loads(record.read_text()) == {"torch": 1.0, "whole": 1.9, "sparse": 0.1}
    # Another workload, and a damaged record.
    assert switch_density(layers, Workload(2, 16, "bf16", True), nullcontext, cache) == 1.0
    record.write_text("{")
    assert switch_density(layers, SHORT, nullcontext, cache) == 0.0
    assert switch_density(layers, SHORT, nullcontext, cache) == 0.0
    assert len(cache.files()) == 2


@pytest.mark.parametrize("text", ["{}", "[]", '{"torch": 1}', '{"torch": null, "whole": 1, "sparse": 1}'])
def test_a_record_without_times_is_measured_again(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure", lambda *_: LayerTimes(1.0, 1.9, 0.1))
    layers, cache = layers_of(trainable("bert")), cache_in(tmp_path)
    switch_density(layers, SHORT, nullcontext, cache)
    (record,) = cache.files()
    record.write_text(text)
    assert switch_density(layers, SHORT, nullcontext, cache) == 0.5
    assert json.loads(record.read_text())["whole"] == 1.9


def test_the_first_of_two_processes_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, context = layers_of(trainable("bert")), multiprocessing.get_context("fork")
    started, cache = context.Event(), cache_in(tmp_path)

    def slow(*_: Any) -> LayerTimes:
        started.set()
        time.sleep(0.5)  # while the other process asks
        return LayerTimes(1.0, 1.9, 0.1)

    monkeypatch.setattr(module, "measure", slow)
    first = context.Process(target=switch_density, args=(layers, SHORT, nullcontext, cache))
    first.start()
    assert started.wait(60)
    monkeypatch.setattr(module, "measure", lambda *_: LayerTimes(1.0, 0.5, 0.1))
    assert switch_density(layers, SHORT, nullcontext, cache) == 0.5
    first.join()


def test_without_a_place_for_records_each_run_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter([LayerTimes(1.0, 1.9, 0.1), LayerTimes(1.0, 0.5, 0.1)])
    monkeypatch.setattr(module, "measure", lambda *_: next(measured))
    layers, cache = layers_of(trainable("bert")), cache_in(tmp_path, 0.0)
    assert [switch_density(layers, SHORT, nullcontext, cache) for _ in range(2)] == [0.5, 1.0]
    assert not cache.files()
