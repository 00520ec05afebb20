"""The density up to which the kernels compute a training step of a layer faster than PyTorch: measured, and recorded.

Time grows linearly with the share of weights in live blocks, so two densities tell all others. Processors differ by
much: on some PyTorch's products run at less than half of what the kernels reach at density 1.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor

from hydraprune.kernels.live_blocks import ROWS
from hydraprune.models.live_layers import LiveLayers
from hydraprune.sparsity.native_code import processor

Autocast = Callable[[], AbstractContextManager[None]]
log = logging.getLogger(__name__)

_SPARSE = 0.1
# Shares are rounded down to multiples of this, so that measuring again rarely gives another one.
_STEP = 0.05
# Kernels are used where they take at most this share of PyTorch's time.
_MARGIN = 0.95
_MOST_TOKENS = 512
_WIDTH = 16
# Rounds that are measured, of all sides in turn; fewer where they take long.
_ROUNDS, _LEAST_ROUNDS, _SECONDS = 7, 3, 2.0
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class LayerTimes:
    """Seconds of one layer.

    Args:
        torch: as PyTorch computes it.
        whole, sparse: by the kernels, at densities 1 and 0.1.
    """

    torch: float
    whole: float
    sparse: float

    @property
    def density(self) -> float:
        """The largest share of weights in live blocks at which the kernels take 0.95 of PyTorch's time or less."""
        budget = _MARGIN * self.torch
        if self.whole <= budget:
            return 1.0
        if self.sparse > budget or self.whole <= self.sparse:
            return 0.0
        share = _SPARSE + (1 - _SPARSE) * (budget - self.sparse) / (self.whole - self.sparse)
        return round(math.floor(share / _STEP) * _STEP, 2)


@dataclass(frozen=True)
class Workload:
    """What a layer is measured on.

    Args:
        examples, tokens: of a batch; texts all have the same length.
        precision: as in `Settings`, for the record.
        trains: forward and backward pass of a model in training; otherwise the forward pass alone, without dropout.
    """

    examples: int
    tokens: int
    precision: str
    trains: bool

    @classmethod
    def like(cls, batch_size: int, mean_tokens: float, precision: str, trains: bool) -> Workload:
        """Of such batches, cut to a size that is measured within seconds."""
        tokens = min(_MOST_TOKENS, _WIDTH * math.ceil(max(1.0, mean_tokens) / _WIDTH))
        return cls(max(1, min(batch_size, _MOST_TOKENS // tokens)), tokens, precision, trains)


def switch_density(layers: LiveLayers, workload: Workload, autocast: Autocast, folder: Path) -> float:
    """The density of `LayerTimes`, as recorded in `folder` for this kind of processor, layer and workload.

    It is measured where there is no record yet. Whoever records first decides for all processes that share the folder:
    the same config has the same bits from then on.
    """
    path = folder / f"switch-{_key(layers, workload)}.json"
    times = _recorded(path)
    if times is None:
        times = measure(layers, workload, autocast)
        _record(path, times)
        recorded = _recorded(path)
        if recorded is None:
            log.warning("%s cannot be written: every run measures again, unless runtime.largest_density is set", path)
        times = recorded or times
        log.info(
            "Measured: a layer takes %.2f ms in PyTorch, %.2f ms in the kernels, %.2f ms there at density %g; "
            "they compute densities up to %g (%s)",
            *(*(1e3 * seconds for seconds in astuple(times)), _SPARSE, times.density, path),
        )
    return times.density


def measure(layers: LiveLayers, workload: Workload, autocast: Autocast) -> LayerTimes:
    """The least seconds of the first layer over some rounds, which take the sides in turns.

    Random numbers and the mode of the layer are afterwards as before; it has no gradients; `layers` compute as
    at first.
    """
    layer = layers.layers[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(workload.examples, workload.tokens, layer.weights[0].shape[1], generator=generator)
    few = {id(weight): _random_blocks(weight, generator) for weight in layer.weights}
    sides = {"torch": None, "whole": {}, "sparse": few}
    found: dict[str, list[float]] = {name: [] for name in sides}
    training = layer.module.training
    layer.module.train(workload.trains)
    end = time.perf_counter() + _SECONDS
    with torch.random.fork_rng(devices=[]):
        for number in range(_ROUNDS + 1):
            for name, live in sides.items():
                layer.use(live)
                start = time.perf_counter()
                _run(layer.module, x, workload.trains, autocast)
                found[name].append(time.perf_counter() - start)
            if number >= _LEAST_ROUNDS and time.perf_counter() > end:
                break
    layer.use(None)
    layer.module.train(training)
    # PyTorch may have compiled code for the shape in the first round.
    return LayerTimes(**{name: min(seconds[1:]) for name, seconds in found.items()})


def _run(module: torch.nn.Module, x: Tensor, trains: bool, autocast: Autocast) -> None:
    if not trains:
        with torch.no_grad(), autocast():
            module(x)
        return
    x = x.detach().requires_grad_()
    with autocast():
        output = module(x)
    total = (output if isinstance(output, Tensor) else output[0]).float().sum()
    total.backward()
    for parameter in module.parameters():
        parameter.grad = None


def _random_blocks(weight: Tensor, generator: torch.Generator) -> Tensor:
    outputs, inputs = weight.shape
    live = torch.rand(outputs // ROWS, inputs, generator=generator) < _SPARSE
    return live.repeat_interleave(ROWS, 0)


def _key(layers: LiveLayers, workload: Workload) -> str:
    layer = layers.layers[0]
    known = {
        "layer": repr(layer.shape),
        "weights": [list(weight.shape) for weight in layer.weights],
        "dropout": layer.dropout_rates,
        "attention": layers.attention,
        "products": torch.get_float32_matmul_precision(),
        "kernels": layers.kernels,
        "workload": asdict(workload),
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "torch": torch.__version__,
        "form": _FORMAT_VERSION,
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def _recorded(path: Path) -> LayerTimes | None:
    try:
        return LayerTimes(**{name: float(value) for name, value in json.loads(path.read_text("utf-8")).items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _record(path: Path, times: LayerTimes) -> None:
    """Write a record unless a whole one is there; without a place for it every run measures."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        temporary.write_text(json.dumps(asdict(times)), "utf-8")
        try:
            if not path.exists():
                with suppress(OSError):
                    os.link(temporary, path)  # fails where another process was first, or where there are no hard links
            if _recorded(path) is None:
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
