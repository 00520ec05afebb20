"""The switch density: the share of live weights up to which the kernels compute a layer faster than PyTorch.

It is measured once and recorded, since processors differ by much: on some PyTorch's products run at less than half of
what the kernels reach at density 1. Time grows linearly with the share of weights in live blocks, so two densities tell
all others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hydraprune.kernels.live_blocks import ROWS
from hydraprune.models.live_layers import LiveLayers
from hydraprune.sparsity.native_code import processor
from hydraprune.utils.cache import Cache
from hydraprune.utils.turns import least_seconds

Autocast = Callable[[], AbstractContextManager[None]]
log = logging.getLogger(__name__)

_SPARSE = 0.1
# Densities are rounded down to multiples of this, so that measuring again rarely gives another one.
_STEP = 0.05
# Kernels are used where they take at most this share of PyTorch's time.
_MARGIN = 0.95
_MOST_TOKENS = 512
_WIDTH = 16
_SECONDS = 2.0
_RECORD_BYTES = 1000
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
    def switch_density(self) -> float:
        """The largest density at which the kernels take 0.95 of PyTorch's time or less; 0 if there is none."""
        budget = _MARGIN * self.torch
        if self.whole <= budget:
            return 1.0
        if self.sparse > budget or self.whole <= self.sparse:
            return 0.0
        density = _SPARSE + (1 - _SPARSE) * (budget - self.sparse) / (self.whole - self.sparse)
        return round(math.floor(density / _STEP) * _STEP, 2)


@dataclass(frozen=True)
class Workload:
    """What a layer is measured on.

    Args:
        examples, tokens: of a batch; texts all have the same length.
        precision: as in `Settings`.
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


def switch_density(layers: LiveLayers, workload: Workload, autocast: Autocast, cache: Cache) -> float:
    """The switch density of some layers, as recorded in the cache for this kind of processor, layer and workload.

    It is measured where there is no record: the same config has the same bits as long as the cache is kept. A cache
    that may hold nothing (`cache.max_gb=0`) gets no record.

    Raises:
        UserError: the cache's folder cannot be written.
    """

    def measured() -> LayerTimes:
        times = measure(layers, workload, autocast)
        log.info(
            "Measured: a layer takes %.2f ms in PyTorch, %.2f ms in the kernels, %.2f ms there at density %g; they "
            "compute densities up to %g",
            *(*(1e3 * seconds for seconds in astuple(times)), _SPARSE, times.switch_density),
        )
        return times

    if not cache.admits(_RECORD_BYTES):
        return measured().switch_density
    name = f"{_key(layers, workload)}.json"
    return cache.fetch("native", name, _RECORD_BYTES, lambda path: _write(path, measured()), _read).switch_density


def measure(layers: LiveLayers, workload: Workload, autocast: Autocast) -> LayerTimes:
    """The least seconds of a pass of the first layer in PyTorch and in the kernels, which take turns.

    Random numbers and the mode of the layer are afterwards as before; it has no gradients; `layers` compute as at
    first.
    """
    layer = layers.layers[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(workload.examples, workload.tokens, layer.weights[0].shape[1], generator=generator)
    few = {id(weight): _random_blocks(weight, generator) for weight in layer.weights}
    live = {"torch": None, "whole": {}, "sparse": few}

    def train() -> None:
        with autocast():
            _backward(layer.module, x)

    @torch.no_grad()
    def infer() -> None:
        layer.module(x)

    one_pass = train if workload.trains else infer
    mode = layer.module.training
    layer.module.train(workload.trains)
    # A teacher converts its weights once for many batches, a step of a training once for itself.
    with torch.random.fork_rng(devices=[]), nullcontext() if workload.trains else autocast():
        times = least_seconds(dict.fromkeys(live, one_pass), lambda side: layer.use(live[side]), _SECONDS)
    layer.use(None)
    layer.module.train(mode)
    return LayerTimes(**times)


def _backward(module: nn.Module, x: Tensor) -> None:
    output = module(x.detach().requires_grad_())
    (output if isinstance(output, Tensor) else output[0]).float().sum().backward()
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
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def _write(path: Path, times: LayerTimes) -> None:
    path.write_text(json.dumps(asdict(times)), encoding="utf-8")


def _read(path: Path) -> LayerTimes:
    """The times in a file.

    Raises:
        ValueError: it holds none.
    """
    try:
        return LayerTimes(**{name: float(value) for name, value in json.loads(path.read_text("utf-8")).items()})
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None
