"""A training step never waits for its device: it runs where there is nothing to be read.

On torch's meta device tensors have shapes and no numbers. What an accelerator would make the host
wait for (a number, a truth value, a copy to the host, a result whose shape depends on numbers)
raises an error there, and what lies on the host is read as ever.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from hydraprune.config import instantiate as assembly
from hydraprune.config.composition import conf_dir
from hydraprune.data.batches import Batch
from hydraprune.data.examples import Labels
from hydraprune.models.compact_embedding import CompactEmbedding
from hydraprune.models.dropout import FastDropout
from hydraprune.models.pretrained import TinyModel
from hydraprune.runs.experiment import build_experiment
from hydraprune.runs.setup import TaskLoader, prepare
from hydraprune.sparsity import Block, NofM, Pattern, Plans
from hydraprune.sparsity import saliency_kernels as products
from hydraprune.tracking import Silent
from hydraprune.training.parameter_groups import decay_groups
from hydraprune.training.state import Run
from hydraprune.training.step import Clock, take_step
from hydraprune.training.teachers import NoTeacher, StoredTeacher

META = torch.device("meta")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dense")
    tiny = TinyModel("tiny", 64, 1, 4, 64, dropout=0.1)
    tiny.load(Labels(("negative", "positive"))).save_pretrained(folder)  # type: ignore[operator]
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def built(dense: str, small: tuple[str, ...]) -> Iterator[Callable[..., Run]]:
    """A run made of these words as the command line makes it, up to its first step."""

    def make(*words: str) -> Run:
        own = [word for word in small if not word.startswith("dense.")]
        config = compose("config", [*own, f"dense.source={dense}", *words], return_hydra_config=True)
        return prepare(build_experiment(config, "nowhere"), dense, TaskLoader()).training(Silent())

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield make
    GlobalHydra.instance().clear()
    AcceleratorState._reset_state(reset_partial_state=True)


def batches_of(run: Run) -> list[list[Batch]]:
    """What each step of the first two epochs is given."""
    size, found = run.settings.accumulation, []
    for epoch in range(2):
        batches = list(run.train.epoch(epoch))
        found += [batches[start : start + size] for start in range(0, len(batches), size)]
    return found


def begun(made: Run, steps: int) -> Run:
    """The run after its first steps, on the processor."""
    for pruner in made.pruners:
        pruner.project(0)
    made.model.train()
    for step, batches in enumerate(batches_of(made)[:steps]):
        take_step(made, batches, step, Clock())
    return made


def numberless(run: Run, attention: str = "hydraprune_sdpa") -> Run:
    """The same run on the meta device, its masks and memory in force."""
    model = copy.deepcopy(run.model).to(META).train()
    model.set_attn_implementation(attention)  # type: ignore[operator]
    plans = Plans("test", {pruner.name: pruner.plan for pruner in run.pruners})
    pruners = assembly.pruners(plans, model, run.steps, run.steps_per_epoch)
    for pruner, before in zip(pruners, run.pruners, strict=True):
        pruner.load_state_dict(before.state_dict())
    optimizer = run.accelerator.prepare_optimizer(torch.optim.AdamW(decay_groups(model), lr=1e-3))
    for state in (PartialState(), run.accelerator.state):
        state.device = META
    assert run.accelerator.device == META
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    return replace(run, model=model, pruners=pruners, optimizer=optimizer, lr_scheduler=schedule)


BEGUN = 10
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


@pytest.mark.parametrize("words", WAYS, ids=" ".join)
def test_a_step_between_updates_reads_nothing_from_its_device(
    words: tuple[str, ...], built: Callable[..., Run]
) -> None:
    made = built(*words)
    run = begun(made, BEGUN)
    assert all(pruner.zeros > 0 for pruner in run.pruners)
    assert isinstance(run.teacher, NoTeacher if "distill=none" in words else StoredTeacher)
    assert isinstance(run.model.get_input_embeddings(), CompactEmbedding)  # type: ignore[operator]
    assert any(isinstance(module, FastDropout) for module in run.model.modules())
    there = numberless(run)
    for step, batches in enumerate(batches_of(run)[BEGUN : BEGUN + 2], BEGUN):
        assert not any(pruner.updates.due(step + 1) for pruner in there.pruners)
        loss = take_step(there, batches, step, Clock())
        assert (loss.device, loss.shape) == (META, ())
    assert all(parameter.device == META for parameter in there.model.parameters())
    assert all(mask.device == META for pruner in there.pruners for mask in pruner.masks.values())


def test_what_waits_would_be_found_out(built: Callable[..., Run]) -> None:
    made = built("pattern=4x1")
    run = begun(made, BEGUN)
    batches = batches_of(run)[BEGUN]
    # transformers' own attention looks whether anything is padded, and an update counts what it prunes.
    with pytest.raises(RuntimeError, match="meta"):
        take_step(numberless(run, "sdpa"), batches, BEGUN, Clock())
    assert all(pruner.updates.due(13) for pruner in run.pruners)
    with pytest.raises(RuntimeError, match="meta"):
        take_step(numberless(run), batches, 12, Clock())


@pytest.mark.parametrize("pattern", [Block(4, 1), Block(1, "channel"), NofM(2, 4)], ids=lambda p: p.name)
def test_scores_of_all_layers_at_once_are_read_by_nobody_and_the_same(pattern: Pattern) -> None:
    """What `accumulate` does on an accelerator, where there is none."""
    generator = torch.Generator().manual_seed(0)
    steps = [[[torch.randn(8, 1, n, generator=generator) for n in (4, 12)] for _ in range(2)] for _ in range(3)]
    here = there = nowhere = None
    for weights, gradients in steps:
        here = products.accumulate(here, weights, gradients, pattern, 0.9)
        there = products._together(there, weights, gradients, pattern, 0.9)
        absent = [[tensor.to(META) for tensor in tensors] for tensors in (weights, gradients)]
        nowhere = products._together(nowhere, *absent, pattern, 0.9)
    assert here is not None
    assert there is not None
    assert nowhere is not None
    for one, other, shape in zip(here, there, nowhere, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=0)
        assert one.shape == shape.shape
