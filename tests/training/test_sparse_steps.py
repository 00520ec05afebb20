"""Sparse steps against dense ones: the same masks after every step, the same weights up to rounding."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from sparse_step_helpers import (
    BELOW_ONE,
    FOUR,
    RAMP,
    STEPS,
    Trained,
    adamw,
    assert_same_training,
    live_share,
    sgd,
    training,
)
from torch import Tensor, nn

from hydraprune import sparsity
from hydraprune.kernels.training import LINEARS
from hydraprune.sparsity import (
    Criterion,
    Fisher,
    Gradient,
    GroupLasso,
    Hold,
    Magnitude,
    Method,
    Movement,
    OneShot,
    Plans,
    Platon,
    Progressive,
    Rigl,
    Snip,
    SnipMomentum,
    SoftMovement,
    SparseGpt,
    SrSte,
    Wanda,
    block,
    ffn_channels,
    heads,
    lock,
    n_of_m,
)
from hydraprune.training.settings import Settings
from hydraprune.training.sparse_steps import SparseSteps, sparse_step_misfit

WEIGHTS = 2 * len(LINEARS)


def compare(*arguments: Any, **more: Any) -> tuple[Trained, Trained]:
    """The same training with sparse steps, as soon as there are masks, and with dense ones alone."""
    sparse = training(*arguments, **more)
    assert sparse_step_misfit(sparse.pruners, sparse.setup.optimizer.optimizer, sparse.setup.settings) is None
    sparse.start().train()
    dense = training(*arguments, **{**more, "switch_density": None}).start().train()
    assert_same_training(sparse, dense)
    assert not any(dense.sparse)
    return sparse, dense


@pytest.mark.parametrize("optimizer", [adamw, sgd])
@pytest.mark.parametrize("method", [SnipMomentum(), Snip(), Magnitude()], ids=lambda m: type(m).__name__)
def test_a_whole_ramp(method: Method, optimizer: Any) -> None:
    sparse, _ = compare(FOUR, method, optimizer=optimizer)
    # The first update, to the initial sparsity, prunes nothing.
    assert sparse.sparse == [False] * 6 + [True] * (STEPS - 5)
    assert not all(torch.equal(sparse.masks[9][name], mask) for name, mask in sparse.masks[12].items())
    assert sparse.setup.sparse_steps.sparse.steps == STEPS - 6


@pytest.mark.parametrize(
    "plans",
    [
        block(8, 1, 0.9),
        block(2, 1, 0.9),
        block(1, 1, 0.9),
        block(1, "channel", 0.5),
        block("channel", 1, 0.5),
        block(4, 4, 0.8, scope="local"),
        n_of_m(2, 4),
        ffn_channels(0.5),
        heads(0.5),
    ],
    ids=lambda plans: plans.name,
)
def test_patterns(plans: Plans) -> None:
    sparse, _ = compare(plans)
    assert any(sparse.sparse)


@pytest.mark.parametrize("optimizer", [torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.NAdam])
def test_other_optimizers(optimizer: Any) -> None:
    compare(optimizer=lambda groups: optimizer(groups, lr=1e-3))


@pytest.mark.parametrize("method", [Wanda(), SparseGpt()], ids=lambda m: type(m).__name__)
def test_pruning_by_calibration(method: Method) -> None:
    sparse, _ = compare(block(4, 1, 0.8), method, OneShot())
    assert all(sparse.sparse)
    compare(block(4, 1, 0.8), method, OneShot(warmup=9))


def test_zeros_that_are_kept() -> None:
    def prune(model: Any) -> None:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "layer." in name and weight.dim() == 2:
                    weight.mul_(torch.rand(weight.shape, generator=generator) < 0.1)

    sparse, _ = compare(lock(), sparsity.LockZeros(), Hold(), prepare=prune)
    assert all(sparse.sparse)
    # A sparse model that is pruned on: its zeros stay.
    compare(block(4, 1, 0.9, initial_sparsity=0.6), prepare=prune)


def test_masks_in_parts() -> None:
    compare(FOUR, transition=Progressive(3))
    compare(FOUR, transition=Progressive(2, "linear"))


def test_a_regularizer() -> None:
    compare(FOUR, regularizer=GroupLasso(0.01))


def test_accumulated_batches() -> None:
    sparse, _ = compare(FOUR, accumulation=3)
    counted = sparse.setup.sparse_steps
    assert counted.sparse.steps == STEPS - 6
    assert counted.sparse.tokens > counted.dense.tokens > 0


def test_steps_that_are_skipped_change_nothing() -> None:
    """Here by a loss that is not finite; the masks of the next update are the same."""
    both = []
    for density in (BELOW_ONE, None):
        each = training(FOUR, skip_nonfinite=1, switch_density=density).start().train(end=13)
        both.append(each)
        bias = each.setup.model.classifier.bias
        kept = bias.detach().clone()
        with torch.no_grad():
            bias.fill_(torch.inf)
        with pytest.raises(AssertionError):
            each.train(13, 14)
        with torch.no_grad():
            bias.copy_(kept)
        each.train(14)
    assert_same_training(*both)


def test_repeated_trainings_have_the_same_bits() -> None:
    one, two = (training().start().train() for _ in range(2))
    assert one.losses == two.losses
    assert all(torch.equal(weight, two.weights[name]) for name, weight in one.weights.items())


# When steps are sparse ----------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.5, 0.25])
def test_steps_are_sparse_once_few_weights_are_live(limit: float) -> None:
    trained = training(block(2, 1, 0.9), switch_density=limit).start().train()
    assert not trained.sparse[0]
    assert trained.sparse[-1]
    for sparse, masks in zip(trained.sparse, trained.masks, strict=True):
        assert sparse == (len(masks) == WEIGHTS and live_share(list(masks.values())) <= limit)
    counted = trained.setup.sparse_steps
    assert (counted.sparse.steps, counted.dense.steps) == (sum(trained.sparse[:-1]), STEPS - sum(trained.sparse[:-1]))
    assert counted.gain is not None
    assert counted.gain > 0


def test_the_share_is_that_of_all_weights_of_the_layers() -> None:
    """Feed-forward networks pruned to nothing leave the half that attention has."""
    only = sparsity.Layers(roles=["ffn"])
    trained = training(block(4, 1, 0.95, layers=only), switch_density=0.55).start().train()
    assert trained.sparse[-1]
    assert not training(block(4, 1, 0.95, layers=only), switch_density=0.5).start().train().sparse[-1]


class Watched:
    """Layers, and what they were told to use: True for all blocks, False for some, None for their own way."""

    def __init__(self, layers: Any) -> None:
        self._layers = layers
        self.used: list[bool | None] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layers, name)

    def use(self, live: Any) -> None:
        self.used.append(None if live is None else not live)
        self._layers.use(live)


def watched(trained: Any) -> Watched:
    steps = trained.setup.sparse_steps
    steps.layers = Watched(steps.layers)
    return steps.layers


def test_the_kernels_compute_dense_steps_too_where_they_are_faster() -> None:
    dense = training(FOUR, switch_density=None, optimizer=sgd).start().train()
    trained = training(FOUR, switch_density=1.0, optimizer=sgd)
    layers = watched(trained)
    assert_same_training(trained.start().train(), dense)
    # All blocks up to the first update that prunes; then those of each update, and once more to be packed.
    assert layers.used[:2] == [True, False]
    assert True not in layers.used[1:]
    assert trained.setup.sparse_steps.dense.steps == 6


def test_steps_that_need_whole_gradients_are_dense_in_the_kernels() -> None:
    """Where those are faster; masked weights have gradients then, and masks do not change the blocks."""
    dense = training(FOUR, Gradient(), switch_density=None, optimizer=sgd).start().train()
    trained = training(FOUR, Gradient(), switch_density=1.0, optimizer=sgd)
    trained.setup.sparse_steps.exact = False
    layers = watched(trained)
    assert_same_training(trained.start().train(), dense)
    assert layers.used == [True]
    assert not any(trained.sparse)
    assert trained.setup.sparse_steps.sparse.steps == 0
    slower = training(FOUR, Gradient(), switch_density=0.9)
    slower.setup.sparse_steps.exact = False
    layers = watched(slower)
    slower.start().train()
    assert set(layers.used) == {None}


def test_without_layers_steps_are_counted_and_dense() -> None:
    trained = training(switch_density=None).start().train()
    counted = trained.setup.sparse_steps
    assert (counted.sparse.steps, counted.dense.steps, counted.gain, counted.revived) == (0, STEPS, None, 0)


# Weights that come back ---------------------------------------------------------------------------


class Scripted:
    """A pruner in whose masks some weights come back at one update, and some at the next."""

    def __init__(self, pruner: Any, revive: dict[int, int]) -> None:
        self._pruner, self._revive = pruner, revive
        self._added: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pruner, name)

    @property
    def masks_in_force(self) -> dict[str, Tensor]:
        masks: dict[str, Tensor] = self._pruner.masks_in_force
        if self._added is not None and masks:
            first = next(iter(masks))
            masks[first] = masks[first] | self._added
        return masks

    def project(self, step: int, optimizer: Any) -> bool:
        if step in self._revive:
            masks = self._pruner.masks_in_force
            mask = next(iter(masks.values()))
            dead = (~mask).nonzero()[: self._revive[step]]
            self._added = torch.zeros_like(mask)
            self._added[dead[:, 0], dead[:, 1]] = True
        return bool(self._pruner.project(step, optimizer))


def test_after_a_revival_steps_are_dense_until_masks_are_final(caplog: pytest.LogCaptureFixture) -> None:
    def scripted(pruners: Sequence[Any]) -> Any:
        return tuple(Scripted(pruner, {12: 7, 15: 20}) for pruner in pruners)

    with caplog.at_level(logging.WARNING):
        trained = training(FOUR, replace=scripted).start().train()
    # Of steps 6 to 12, and from 18 on, the last update.
    assert [step for step, sparse in enumerate(trained.sparse) if sparse] == [*range(6, 12), *range(18, STEPS + 1)]
    assert trained.setup.sparse_steps.revived == 7
    messages = [record.message for record in caplog.records if "came back" in record.message]
    assert messages == ["step 12: 7 pruned weights came back; steps are dense until masks are final"]
    state = trained.setup.sparse_steps.state_dict()
    assert state["revived"] == trained.setup.sparse_steps.revived == 7
    other = SparseSteps(None)
    other.load_state_dict(state)
    assert other.state_dict() == state


def test_a_revival_in_dense_steps_is_none() -> None:
    def scripted(pruners: Sequence[Any]) -> Any:
        return tuple(Scripted(pruner, {9: 7}) for pruner in pruners)

    trained = training(FOUR, replace=scripted, switch_density=0.3).start().train()
    assert trained.setup.sparse_steps.revived == 0
    assert trained.sparse[-1]


# Why every step is dense --------------------------------------------------------------------------


def pruner_for(method: Method, plans: Plans = FOUR) -> Any:
    return training(plans, method).pruners


@pytest.mark.parametrize(
    "method",
    [Gradient(), Movement(), Rigl(), Platon(), Fisher(), SoftMovement(), SrSte()],
    ids=lambda m: type(m).__name__,
)
def test_methods_that_read_gradients_of_pruned_weights(method: Method) -> None:
    plans = n_of_m(2, 4) if isinstance(method, SrSte) else FOUR
    schedule = OneShot(warmup=2) if isinstance(method, SrSte) else RAMP
    trained = training(plans, method, schedule)
    assert trained.pruners[0].needs_pruned_gradients
    why = sparse_step_misfit(trained.pruners, adamw_of(trained), trained.setup.settings)
    assert why == f"pruner {plans.name} needs the gradients of pruned weights"


def adamw_of(trained: Trained) -> Any:
    return trained.setup.optimizer.optimizer  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Own(Criterion):
    """One that declares nothing."""

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return weight.abs() + gradient.abs()


@dataclass(frozen=True)
class OwnWithoutGradients(Criterion):
    uses_gradient = False
    reads_pruned_gradients = False

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return weight.square()


def test_a_criterion_of_ones_own_declares_it() -> None:
    assert pruner_for(Own())[0].needs_pruned_gradients
    assert not pruner_for(OwnWithoutGradients())[0].needs_pruned_gradients
    compare(FOUR, OwnWithoutGradients())


class SnipAndGradient(SnipMomentum):
    """Scores in a way of its own, and says nothing."""

    def score(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return super().score(weight, gradient) + gradient.abs()


class SnipByAnotherName(SnipMomentum):
    """Scores as its base class."""


def test_a_criterion_that_scores_in_a_way_of_its_own_inherits_no_promise() -> None:
    assert pruner_for(SnipAndGradient())[0].needs_pruned_gradients
    assert not pruner_for(SnipByAnotherName())[0].needs_pruned_gradients


class Mixing(torch.optim.AdamW):
    """An optimizer of one's own, even if it is like one that is known."""


@pytest.mark.parametrize(
    ("optimizer", "settings", "why"),
    [
        (torch.optim.Adafactor, {}, "optimizer Adafactor may mix the gradients"),
        (torch.optim.Adamax, {}, "optimizer Adamax may mix the gradients"),
        (Mixing, {}, "optimizer Mixing may mix the gradients"),
        (torch.optim.AdamW, {"max_grad_norm": 1.0}, "training.max_grad_norm"),
    ],
    ids=["Adafactor", "Adamax", "own", "clipping"],
)
def test_reasons(optimizer: Any, settings: dict[str, Any], why: str) -> None:
    pruners, weight = pruner_for(SnipMomentum()), nn.Parameter(torch.zeros(4, 4))
    given = Settings(epochs=1, batch_size=1, device="cpu", **settings)
    found = sparse_step_misfit(pruners, optimizer([weight]), given)
    assert found is not None
    assert why in found


def test_nothing_is_pruned() -> None:
    weight = nn.Parameter(torch.zeros(4, 4))
    settings = Settings(epochs=1, batch_size=1, device="cpu")
    assert sparse_step_misfit((), torch.optim.AdamW([weight]), settings) == "nothing is pruned"
