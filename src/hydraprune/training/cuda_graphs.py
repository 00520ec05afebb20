"""CUDA graphs: forward and backward pass, captured once per shape of a batch and replayed as a single launch.

A step of a small model launches hundreds of kernels that take less time than their launch. A graph launches them
together. It reads and writes the same memory at every replay: inputs and teacher outputs are copied into static
tensors, gradients are added to static ones. Batches are padded to few widths (`Batches.few_widths`), so that few graphs
are needed; the shorter last batch of an epoch is computed without one.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hydraprune.data.batches import Batch
from hydraprune.errors import UserError, single_line

# Computes a batch: adds its gradients and returns its loss, a scalar on the device.
Backward = Callable[[Batch, "Tensor | None", "float | Tensor"], Tensor]
# Captures a computation and returns its replay.
Capture = Callable[[Callable[[], None]], Callable[[], None]]
# Passes before a capture, in which libraries choose their algorithms and allocate workspaces.
_WARM_UP = 3


class CudaGraphs:
    """Computes batches of one size by CUDA graphs.

    Args:
        model: the student; its parameters stay where they are in memory, or graphs are captured again.
        backward: computes a batch; called with a tensor [] as divisor of the loss.
        batch_size: examples of the batches that have a graph.
        capture: see `Capture`; `GpuCapture()` on a GPU.
    """

    def __init__(self, model: nn.Module, backward: Backward, batch_size: int, capture: Capture) -> None:
        self.model, self.backward, self.batch_size, self.capture = model, backward, batch_size, capture
        self._graphs: dict[object, _Graph] = {}
        self._gradients: dict[nn.Parameter, Tensor] = {}
        self._addresses: list[int] = []

    def __len__(self) -> int:
        """Graphs captured so far."""
        return len(self._graphs)

    def __call__(self, batch: Batch, teacher_outputs: Tensor | None, divisor: float | Tensor) -> Tensor:
        """Add the gradients of a batch's loss, divided by `divisor`, to those of the model; returns that loss.

        Raises:
            UserError: the forward or backward pass cannot be captured.
        """
        if len(batch.labels) != self.batch_size:
            return self.backward(batch, teacher_outputs, divisor)
        addresses = [weight.data_ptr() for weight in self.model.parameters()]
        if addresses != self._addresses:
            self._graphs, self._gradients, self._addresses = {}, {}, addresses
        key = _shapes(batch, teacher_outputs)
        if (graph := self._graphs.get(key)) is None:
            graph = self._graphs[key] = self._captured(batch, teacher_outputs)
        self._use_static_gradients()
        return graph(batch, teacher_outputs, divisor)

    def _captured(self, batch: Batch, teacher_outputs: Tensor | None) -> _Graph:
        graph = _Graph.of(batch, teacher_outputs)
        before = {weight: weight.grad for weight in self.model.parameters()}

        def compute() -> None:
            graph.loss.copy_(self.backward(graph.batch, graph.teacher_outputs, graph.divisor))

        # Passes before the capture add to the static gradients.
        kept = [None if gradient is None else gradient.clone() for gradient in before.values()]
        try:
            if not self._gradients:
                self._gradients = self._first_gradients(compute)
            for weight in before:
                weight.grad = self._gradients.get(weight)
            graph.replay = self.capture(compute)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UserError(
                f"training.cuda_graphs=true: a training step of this model cannot be captured: {single_line(error)}",
                cure="use training.cuda_graphs=false",
            ) from error
        for weight, gradient in zip(before, kept, strict=True):
            weight.grad = gradient
        return graph

    def _first_gradients(self, compute: Callable[[], None]) -> dict[nn.Parameter, Tensor]:
        """The gradients of the parameters that get one, from a pass whose random numbers are drawn again."""
        self.model.zero_grad(set_to_none=True)
        with torch.random.fork_rng():
            compute()
        return {weight: weight.grad for weight in self.model.parameters() if weight.grad is not None}

    def _use_static_gradients(self) -> None:
        """Make the static gradients those of the model, with the values that these have."""
        if all(weight.grad is None for weight in self._gradients):
            torch._foreach_zero_(list(self._gradients.values()))
        for weight, static in self._gradients.items():
            if weight.grad is not None and weight.grad is not static:
                static.copy_(weight.grad)
            weight.grad = static


@dataclass
class _Graph:
    """A captured computation and the static tensors that it reads and writes.

    Args:
        batch: inputs and labels; what is on the CPU has no values, since a replay would not read them.
        divisor, loss: [].
    """

    batch: Batch
    teacher_outputs: Tensor | None
    divisor: Tensor
    loss: Tensor
    replay: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, batch: Batch, teacher_outputs: Tensor | None) -> _Graph:
        static = replace(
            batch,
            inputs={name: values.clone() for name, values in batch.inputs.items()},
            labels=batch.labels.clone(),
            indices=batch.indices.to("meta"),
            token_indices=batch.token_indices.to("meta"),
        )
        device = batch.labels.device
        outputs = None if teacher_outputs is None else teacher_outputs.clone()
        return cls(static, outputs, torch.ones((), device=device), torch.zeros((), device=device))

    def __call__(self, batch: Batch, teacher_outputs: Tensor | None, divisor: float | Tensor) -> Tensor:
        for name, values in batch.inputs.items():
            self.batch.inputs[name].copy_(values)
        self.batch.labels.copy_(batch.labels)
        if self.teacher_outputs is not None and teacher_outputs is not None:
            self.teacher_outputs.copy_(teacher_outputs)
        self.divisor.fill_(divisor)
        self.replay()
        return self.loss.clone()


def _shapes(batch: Batch, teacher_outputs: Tensor | None) -> object:
    inputs = tuple((name, values.shape, values.dtype) for name, values in sorted(batch.inputs.items()))
    return inputs, None if teacher_outputs is None else (teacher_outputs.shape, teacher_outputs.dtype)


class GpuCapture:
    """Captures computations as CUDA graphs that share one memory pool.

    They may: a replay leaves nothing in the pool that a later one has to find there. The random numbers of warm-up
    passes are drawn again, so that a resumed training, which captures at other steps, draws the same.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Callable[[], None]) -> Callable[[], None]:
        """Capture `compute`; returns its replay."""
        state = torch.cuda.get_rng_state()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            compute()
        torch.cuda.set_rng_state(state)
        replay: Callable[[], None] = graph.replay
        return replay
