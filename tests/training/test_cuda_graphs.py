"""CUDA graphs: a replayed step computes what an ordinary one does, tested without a GPU.

A traced graph of PyTorch's operations stands in for a CUDA graph. Like one, it runs no Python at a replay, and finds
its inputs in the memory where they were when it was captured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from built_run_helpers import building
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import save_tiny
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from hydraprune.data.batches import Batch
from hydraprune.errors import UserError
from hydraprune.kernels.dropout import FastDropout
from hydraprune.models.attention import choose_attention
from hydraprune.sparsity import SparsityError
from hydraprune.training.clock import Clock
from hydraprune.training.cuda_graphs import Capture, CudaGraphs
from hydraprune.training.distillation import Distiller, NoDistillation, task_loss
from hydraprune.training.settings import Settings
from hydraprune.training.setup import TrainingSetup
from hydraprune.training.step import take_step


def traced(compute: Callable[[], None]) -> Callable[[], None]:
    graph = make_fx(compute)()
    return lambda: graph()


def run_again(compute: Callable[[], None]) -> Callable[[], None]:
    return compute


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("dense"), dropout=0.0))


@pytest.fixture
def built(dense: str, small: tuple[str, ...]) -> Iterator[Callable[..., TrainingSetup]]:
    """Builds a run from these words as the command line does, up to its first step, with batches of few widths."""
    with building(small, dense) as build:

        def make(*words: str) -> TrainingSetup:
            made = build(*words)
            choose_attention(made.model, torch.device("cuda"))
            return replace(made, train=replace(made.train, few_widths=64))

        yield make


def trained(run: TrainingSetup, steps: int = 12) -> tuple[TrainingSetup, list[Tensor]]:
    """The training after its first steps, and their losses."""
    losses: list[Any] = []
    run.model.train()
    step = 0
    while step < steps:
        for batches in run.batches_from(step):
            losses.append(take_step(run, batches, step, Clock()))
            step += 1
    return run, losses


WAYS = [
    ("pattern=4x1", "training.batch_size=16"),
    ("pattern=4x1", "training.batch_size=24", "training.accumulation=2"),
    ("pattern=2:4", "training.batch_size=24", "distill=logits", "training.max_grad_norm=1.0"),
    ("pattern=4x1", "training.batch_size=16", "distill=none", "pruner=rigl"),
    ("pattern=1xchannel", "training.batch_size=24", "distill=none", "pruner=movement"),
]


@pytest.mark.parametrize("words", WAYS, ids=" ".join)
def test_replayed_steps_are_ordinary_ones_bit_for_bit(
    words: tuple[str, ...], built: Callable[..., TrainingSetup]
) -> None:
    words = (*words, "training.fast_dropout=false", "runtime.sparse_steps=false")
    expected, losses = trained(built(*words))
    found, replayed = trained(replace(built(*words), capture=traced))
    assert isinstance(found.backward, CudaGraphs)
    assert 1 <= len(found.backward) < len(losses)
    for one, other in zip(replayed, losses, strict=True):
        assert torch.equal(one, other)
    for (name, weight), other in zip(found.model.named_parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(weight, other), name
    for pruner, before in zip(found.pruners, expected.pruners, strict=True):
        assert pruner.zeros == before.zeros > 0


def test_dropout_of_a_captured_training_draws_the_numbers_of_an_ordinary_one(
    built: Callable[..., TrainingSetup],
) -> None:
    def with_dropout(capture: Any) -> TrainingSetup:
        run = replace(built("pattern=4x1", "training.batch_size=24", "runtime.sparse_steps=false"), capture=capture)
        for module in run.model.modules():
            if isinstance(module, FastDropout):
                module.p = 0.1
        return run

    (expected, losses), (found, again) = trained(with_dropout(None)), trained(with_dropout(run_again))
    assert len({float(loss) for loss in losses}) > 1
    assert all(torch.equal(one, other) for one, other in zip(losses, again, strict=True))
    for weight, other in zip(found.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(weight, other)


# Graphs by themselves -----------------------------------------------------------------------------


class Line(nn.Module):
    """y = a x + b, with a parameter that has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(1.0))
        self.unused = nn.Parameter(torch.tensor(5.0))


def batch_of(values: list[list[float]]) -> Batch:
    rows = torch.tensor(values)
    indices = torch.arange(len(rows))
    return Batch({"x": rows}, rows.sum(1), indices, indices.unsqueeze(1).expand(rows.shape), 1.0)


def graphs_of(model: Line, batch_size: int = 2, capture: Capture = traced) -> CudaGraphs:
    def backward(batch: Batch, _: Tensor | None, divisor: float | Tensor) -> Tensor:
        loss = (model.a * batch.inputs["x"] + model.b).sum(1).sub(batch.labels).square().mean() / divisor
        loss.backward()
        return loss.detach()

    return CudaGraphs(model, backward, batch_size, capture)


def gradients(model: Line) -> list[Tensor | None]:
    return [None if weight.grad is None else weight.grad.clone() for weight in model.parameters()]


FULL, OTHER, WIDE, SHORT = ([[1.0], [2.0]], [[-3.0], [0.5]], [[1.0, 2.0], [3.0, 4.0]], [[7.0]])


@given(st.lists(st.tuples(st.sampled_from([FULL, OTHER, WIDE, SHORT]), st.booleans(), st.sampled_from([1.0, 1.5]))))
@settings(max_examples=40, deadline=None)
def test_gradients_add_up_over_batches_of_any_size_and_start_anew_after_a_step(
    calls: list[tuple[list[list[float]], bool, float]],
) -> None:
    ours, plain = Line(), Line()
    captured, ordinary = graphs_of(ours), graphs_of(plain, batch_size=0)
    for values, ends_a_step, divisor in calls:
        one, other = captured(batch_of(values), None, divisor), ordinary(batch_of(values), None, divisor)
        assert torch.equal(one, other)
        for mine, theirs in zip(gradients(ours), gradients(plain), strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or theirs is None or torch.allclose(mine, theirs)
        if ends_a_step:
            for model in (ours, plain):
                with torch.no_grad():
                    model.a.sub_(torch.ones(()) if model.a.grad is None else 0.01 * model.a.grad)
                model.zero_grad(set_to_none=True)
    assert len(captured) == len({len(values[0]) for values, *_ in calls if len(values) == 2})
    assert len(ordinary) == 0


def test_a_loss_stays_what_it_was_when_the_graph_is_replayed() -> None:
    graphs = graphs_of(Line())
    first = graphs(batch_of(FULL), None, 1.0)
    value = float(first)
    assert float(graphs(batch_of(OTHER), None, 1.0)) != value
    assert float(first) == value


def test_parameters_that_moved_in_memory_are_captured_again() -> None:
    model = Line()
    graphs = graphs_of(model)
    graphs(batch_of(FULL), None, 1.0)
    model.zero_grad(set_to_none=True)
    model.a.data = torch.tensor(-1.0)
    loss = graphs(batch_of(FULL), None, 1.0)
    plain = Line()
    plain.a.data = torch.tensor(-1.0)
    assert torch.equal(loss, graphs_of(plain, batch_size=0)(batch_of(FULL), None, 1.0))
    assert model.a.grad is not None
    assert plain.a.grad is not None
    assert torch.equal(model.a.grad, plain.a.grad)


class ByNumber(NoDistillation):
    """A loss that looks at the numbers of examples, which stay on the CPU."""

    def loss(self, student: nn.Module, batch: Batch, teacher_outputs: Tensor | None) -> Tensor:
        weights = 1.0 + batch.indices.float().to(batch.labels.device)
        return task_loss(student(**batch.inputs).logits, batch.labels) * weights.mean()


class ByValue(NoDistillation):
    """A loss that depends on a value which the host reads."""

    def loss(self, student: nn.Module, batch: Batch, teacher_outputs: Tensor | None) -> Tensor:
        loss = task_loss(student(**batch.inputs).logits, batch.labels)
        return loss * 2 if float(loss.detach()) > 0.5 else loss


@pytest.mark.parametrize("distiller", [ByNumber(), ByValue()], ids=lambda made: type(made).__name__)
def test_what_a_replay_would_not_read_again_is_refused(
    distiller: Distiller, built: Callable[..., TrainingSetup]
) -> None:
    run = replace(built("pattern=4x1", "training.batch_size=16", "distill=none"), distiller=distiller, capture=traced)
    with pytest.raises(UserError, match=r"training\.cuda_graphs=true: .*cannot be captured.*cuda_graphs=false"):
        trained(run)


def test_cuda_graphs_without_a_gpu_are_refused_before_training() -> None:
    for device in ("auto", "cpu"):
        with pytest.raises(SparsityError, match="needs a CUDA device"):
            Settings(epochs=1, batch_size=4, device=device, cuda_graphs=True).check_device()
    assert Settings(epochs=1, batch_size=4).cuda_graphs is False
