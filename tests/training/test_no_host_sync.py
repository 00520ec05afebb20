"""A training step never makes the host wait for its device: it runs on the meta device.

Meta tensors have shapes but no values. Everything that makes the host wait for an accelerator
(reading a value, a condition on one, a copy to the host, a shape that depends on values) raises an
error there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from accelerate.state import PartialState
from built_run_helpers import building
from model_helpers import save_tiny

from hydraprune.config import instantiate
from hydraprune.data.batches import Batch
from hydraprune.kernels.dropout import FastDropout
from hydraprune.models.compact_embedding import CompactEmbedding
from hydraprune.sparsity import Block, NofM, Pattern, Plans
from hydraprune.sparsity import saliency_kernels as products
from hydraprune.training.clock import Clock
from hydraprune.training.parameter_groups import decay_groups
from hydraprune.training.setup import TrainingSetup
from hydraprune.training.step import take_step
from hydraprune.training.teachers import NoTeacher, StoredTeacher

META = torch.device("meta")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("dense"), dropout=0.1))


@pytest.fixture
def built(dense: str, small: tuple[str, ...]) -> Iterator[Callable[..., TrainingSetup]]:
    """Builds a run from these words as the command line does, up to its first step."""
    with building(small, dense) as make:
        yield make


def batches_of(run: TrainingSetup) -> list[list[Batch]]:
    """The batches of every step of the first two epochs."""
    size, found = run.settings.accumulation, []
    for epoch in range(2):
        batches = list(run.train.epoch(epoch))
        found += [batches[start : start + size] for start in range(0, len(batches), size)]
    return found


def after_steps(made: TrainingSetup, steps: int) -> TrainingSetup:
    """The training after its first steps, on the CPU."""
    for pruner in made.pruners:
        pruner.project(0)
    made.model.train()
    for step, batches in enumerate(batches_of(made)[:steps]):
        take_step(made, batches, step, Clock())
    return made


def on_meta(run: TrainingSetup, attention: str = "hydraprune_sdpa") -> TrainingSetup:
    """The same training on the meta device, with its masks and scores."""
    model = copy.deepcopy(run.model).to(META).train()
    model.set_attn_implementation(attention)  # type: ignore[operator]
    plans = Plans("test", {pruner.name: pruner.plan for pruner in run.pruners})
    pruners = instantiate.pruners(plans, model, run.steps, run.steps_per_epoch)
    for pruner, before in zip(pruners, run.pruners, strict=True):
        pruner.load_state_dict(before.state_dict())
    optimizer = run.accelerator.prepare_optimizer(torch.optim.AdamW(decay_groups(model), lr=1e-3))
    for state in (PartialState(), run.accelerator.state):
        state.device = META
    assert run.accelerator.device == META
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    return replace(run, model=model, pruners=pruners, optimizer=optimizer, lr_scheduler=schedule)


STEPS = 10
WAYS = [
    ("pattern=4x1",),
    ("pattern=2:4", "training.max_grad_norm=1.0"),
    ("pattern=1xchannel", "distill=logits", "pruner=snip"),
    ("pattern=mixed", "distill=none", "training.accumulation=2", "training.batch_size=16"),
    ("pattern=1xchannel", "distill=none", "pruner=block_mask"),
    ("pattern=2:4", "distill=none", "pruner=movement"),
    ("pattern=4x1", "distill=none", "pruner=soft_movement", "pruner.penalty=1e-2"),
    ("pattern=heads", "distill=none", "pruner=platon", "scheduler=hold"),
    ("pattern=4x1", "distill=none", "pruner=fisher"),
    ("pattern=1xchannel", "distill=none", "pruner=fisher"),
    ("pattern=4x1", "distill=none", "pruner=rigl"),
]


@pytest.mark.parametrize("graphs", [False, True], ids=["launched", "captured"])
@pytest.mark.parametrize("words", WAYS, ids=" ".join)
def test_a_step_between_mask_updates_reads_nothing_from_its_device(
    words: tuple[str, ...], graphs: bool, built: Callable[..., TrainingSetup]
) -> None:
    made = built(*words)
    run = after_steps(made, STEPS)
    assert all(pruner.zeros > 0 for pruner in run.pruners)
    assert isinstance(run.teacher, NoTeacher if "distill=none" in words else StoredTeacher)
    assert isinstance(run.model.get_input_embeddings(), CompactEmbedding)  # type: ignore[operator]
    assert any(isinstance(module, FastDropout) for module in run.model.modules())
    there = on_meta(run)
    if graphs:
        # Nothing is captured without a GPU: a replay computes again, on static tensors.
        there = replace(there, capture=lambda compute: compute)
    for step, batches in enumerate(batches_of(run)[STEPS : STEPS + 2], STEPS):
        assert not any(pruner.updates.due(step + 1) for pruner in there.pruners)
        loss = take_step(there, batches, step, Clock())
        assert (loss.device, loss.shape) == (META, ())
    assert all(parameter.device == META for parameter in there.model.parameters())
    assert all(mask.device == META for pruner in there.pruners for mask in pruner.masks.values())


def test_operations_that_wait_are_detected(built: Callable[..., TrainingSetup]) -> None:
    made = built("pattern=4x1")
    run = after_steps(made, STEPS)
    batches = batches_of(run)[STEPS]
    # The attention of transformers checks for padding, and a mask update counts the pruned weights.
    with pytest.raises(RuntimeError, match="meta"):
        take_step(on_meta(run, "sdpa"), batches, STEPS, Clock())
    assert all(pruner.updates.due(13) for pruner in run.pruners)
    with pytest.raises(RuntimeError, match="meta"):
        take_step(on_meta(run), batches, 12, Clock())


@pytest.mark.parametrize("pattern", [Block(4, 1), Block(1, "channel"), NofM(2, 4)], ids=lambda p: p.name)
def test_scores_of_all_layers_at_once_are_the_same_without_reading_values(pattern: Pattern) -> None:
    """The path of `accumulate` for accelerators, tested without one."""
    generator = torch.Generator().manual_seed(0)
    steps = [[[torch.randn(8, 1, n, generator=generator) for n in (4, 12)] for _ in range(2)] for _ in range(3)]
    one_by_one = together = on_meta_device = None
    for weights, gradients in steps:
        one_by_one = products.accumulate(one_by_one, weights, gradients, pattern, 0.9)
        together = products._together(together, weights, gradients, pattern, 0.9)
        absent = [[tensor.to(META) for tensor in tensors] for tensors in (weights, gradients)]
        on_meta_device = products._together(on_meta_device, *absent, pattern, 0.9)
    assert one_by_one is not None
    assert together is not None
    assert on_meta_device is not None
    for one, other, shape in zip(one_by_one, together, on_meta_device, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=0)
        assert one.shape == shape.shape
