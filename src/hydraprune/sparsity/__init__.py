"""The sparsity core: patterns, criteria, schedules, selection, masks. Needs torch and nothing else.

Use it in a training loop of your own:

    from hydraprune.sparsity import Exp, Family, SnipMomentum, attach, block

    plan = block(4, 1, target_sparsity=0.9).parts["4x1"].completed(SnipMomentum(), Exp(warmup=100, cooldown=500))
    pruners = attach(model, {"4x1": plan}, Family("mine"), steps=2000)
"""

from hydraprune.sparsity.attach import attach
from hydraprune.sparsity.criteria import (
    BlockMask,
    Criterion,
    Fisher,
    Gradient,
    Magnitude,
    Movement,
    Platon,
    Rigl,
    Snip,
    SnipMomentum,
    SoftMovement,
    Unscored,
)
from hydraprune.sparsity.durations import Duration, in_steps
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.layers import Family, Layers
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.methods import Keep, SrSte
from hydraprune.sparsity.patterns import Block, NofM, Pattern, parse
from hydraprune.sparsity.patterns.heads import Heads
from hydraprune.sparsity.plans import Method, Plan, Plans, block, dense, heads, lock, mixed, n_of_m
from hydraprune.sparsity.posttraining import Calibration, PostTraining, RetrainFree, SparseGpt, Wanda, only
from hydraprune.sparsity.progressive import AtOnce, Progressive
from hydraprune.sparsity.pruners.base import Pruner, Units
from hydraprune.sparsity.regularizers import GroupLasso, Unregularized
from hydraprune.sparsity.saliency_kernels import use_compiled
from hydraprune.sparsity.schedules import (
    Cos,
    Cube,
    Cubic,
    Exp,
    Hold,
    Linear,
    Never,
    OneShot,
    Schedule,
    Threshold,
    Updates,
)
from hydraprune.sparsity.selection import Budget, Selection, cheapest, choose, exact
from hydraprune.sparsity.statistics import (
    LayerSparsity,
    holds_pattern,
    layer_sparsity,
    model_sparsity,
    obeyed_pattern,
    zeros_of,
)

__all__ = [
    "AtOnce",
    "Block",
    "BlockMask",
    "Budget",
    "Calibration",
    "Cos",
    "Criterion",
    "Cube",
    "Cubic",
    "Duration",
    "Exp",
    "Family",
    "Fisher",
    "Gradient",
    "GroupLasso",
    "Heads",
    "Hold",
    "Keep",
    "LayerSparsity",
    "Layers",
    "Linear",
    "Magnitude",
    "Member",
    "Method",
    "Movement",
    "Never",
    "NofM",
    "OneShot",
    "Pattern",
    "Plan",
    "Plans",
    "Platon",
    "PostTraining",
    "Progressive",
    "Pruner",
    "RetrainFree",
    "Rigl",
    "Schedule",
    "Selection",
    "Snip",
    "SnipMomentum",
    "SoftMovement",
    "SparseGpt",
    "SparsityError",
    "SrSte",
    "Structure",
    "Threshold",
    "Units",
    "Unregularized",
    "Unscored",
    "Updates",
    "Wanda",
    "Weight",
    "attach",
    "block",
    "cheapest",
    "choose",
    "dense",
    "exact",
    "heads",
    "holds_pattern",
    "in_steps",
    "layer_sparsity",
    "lock",
    "mixed",
    "model_sparsity",
    "n_of_m",
    "obeyed_pattern",
    "only",
    "parse",
    "use_compiled",
    "zeros_of",
]
