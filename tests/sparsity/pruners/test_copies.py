"""Masks applied to copies of the pruned model: averages of its weights, the model in a wrapper, reloaded weights."""

from __future__ import annotations

import copy

import pytest
import torch
from sparsity_helpers import adamw, mlp, pruner_of, train
from torch import nn
from torch.optim.swa_utils import AveragedModel

from hydraprune.sparsity import Block, Exp, NofM, Pattern, SnipMomentum, SparsityError, custom, holds_pattern, zeros_of

STEPS = 12


@pytest.mark.parametrize("pattern", [Block(4, 1), NofM(2, 4), Block(1, "channel")], ids=lambda p: p.name)
def test_an_average_of_weights_gets_the_masks(pattern: Pattern) -> None:
    model = mlp()
    average = AveragedModel(model)
    pruner = pruner_of(model, custom(pattern, float(pattern.share) / 2), SnipMomentum(), Exp(warmup=2), STEPS)
    train(model, [pruner], range(STEPS), adamw(model), after=lambda step: average.update_parameters(model))
    assert not holds_pattern(pruner, dict(average.module.named_parameters()))[0]
    pruner.apply_to(average)
    assert holds_pattern(pruner, dict(average.module.named_parameters()))[0]
    assert holds_pattern(pruner, dict(average.named_parameters()))[0]
    assert sum(zeros_of(average.module[i].weight) for i in (0, 2)) == pruner.zeros


def test_reloaded_weights_get_the_masks() -> None:
    model = mlp()
    dense = copy.deepcopy(model)
    pruner = pruner_of(model, custom(Block(4, 1), 0.5), SnipMomentum(), Exp(warmup=2), STEPS)
    train(model, [pruner], range(STEPS))
    expected = {name: weight * pruner.masks.get(name, 1) for name, weight in dense.named_parameters()}
    pruner.apply_to(dense)
    assert all(torch.equal(weight, expected[name]) for name, weight in dense.named_parameters())


def test_another_model_is_refused_and_left_as_it_is() -> None:
    model = mlp()
    pruner = pruner_of(model, custom(Block(4, 1), 0.5), SnipMomentum(), Exp(warmup=2), STEPS)
    train(model, [pruner], range(STEPS))
    for other, word in (
        (nn.Sequential(nn.Linear(20, 20)), "is not there"),
        (nn.Sequential(nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 8)), r"has shape \(8, 20\) there"),
    ):
        with pytest.raises(SparsityError, match=rf"masks 2\.weight \(40, 20\), which {word}; give a copy"):
            pruner.apply_to(other)
        assert zeros_of(other[0].weight) == 0
