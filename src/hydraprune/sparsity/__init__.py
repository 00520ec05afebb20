"""The sparsity core: patterns, criteria, schedules, selection, masks. Needs torch and nothing else.

Use it in a training loop of your own:

    from hydraprune.sparsity import Exp, Family, SnipMomentum, attach, block

    plan = block(4, 1, target_sparsity=0.9).parts["4x1"].completed(SnipMomentum(), Exp(warmup=100, cooldown=500))
    pruners = attach(model, {"4x1": plan}, Family("mine"), steps=2000)
"""

from hydraprune.sparsity.criteria import Criterion, Gradient, Magnitude, Snip, SnipMomentum, Unscored
from hydraprune.sparsity.durations import Duration, in_steps
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layers import Family, Layers
from hydraprune.sparsity.measures import (
    LayerSparsity,
    holds_pattern,
    layer_sparsity,
    model_sparsity,
    obeyed_pattern,
    zeros_of,
)
from hydraprune.sparsity.patterns import Block, NofM, Pattern, parse
from hydraprune.sparsity.plans import Plan, Plans, block, dense, mixed, n_of_m
from hydraprune.sparsity.products import use_compiled
from hydraprune.sparsity.pruner import Pruner, Units, attach
from hydraprune.sparsity.schedules import Cos, Cube, Cubic, Exp, Linear, Never, OneShot, Schedule, Updates
from hydraprune.sparsity.selection import Budget, Selection, cheapest, choose, exact
from hydraprune.sparsity.views import Weight

__all__ = [
    "Block",
    "Budget",
    "Cos",
    "Criterion",
    "Cube",
    "Cubic",
    "Duration",
    "Exp",
    "Family",
    "Gradient",
    "LayerSparsity",
    "Layers",
    "Linear",
    "Magnitude",
    "Never",
    "NofM",
    "OneShot",
    "Pattern",
    "Plan",
    "Plans",
    "Pruner",
    "Schedule",
    "Selection",
    "Snip",
    "SnipMomentum",
    "SparsityError",
    "Units",
    "Unscored",
    "Updates",
    "Weight",
    "attach",
    "block",
    "cheapest",
    "choose",
    "dense",
    "exact",
    "holds_pattern",
    "in_steps",
    "layer_sparsity",
    "mixed",
    "model_sparsity",
    "n_of_m",
    "obeyed_pattern",
    "parse",
    "use_compiled",
    "zeros_of",
]
