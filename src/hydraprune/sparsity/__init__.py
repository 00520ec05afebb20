"""The sparsity core: patterns, criteria, schedules, selection, masks. Needs torch and nothing else.

In a training loop of your own (see `Pruner`):

    from hydraprune.sparsity import Exp, Family, SnipMomentum, attach, block

    plan = block(4, 1, target_sparsity=0.9).parts["4x1"].completed(SnipMomentum(), Exp(warmup=100, cooldown=500))
    pruners = attach(model, {"4x1": plan}, Family("mine"), steps=2000)
"""

from hydraprune.sparsity.attach import attach
from hydraprune.sparsity.coverage import Coverage, DenseWeight, PrunedWeight, coverage
from hydraprune.sparsity.criteria import (
    ALL_STEPS,
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
    add_decayed,
    given,
    steps_remembered,
)
from hydraprune.sparsity.durations import Duration, in_steps
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Member, Structure
from hydraprune.sparsity.hooks import StepHooks, hooked
from hydraprune.sparsity.layers import Family, Layers
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.methods import LockZeros, Method, SrSte
from hydraprune.sparsity.patterns import Block, NofM, Pattern, Reduce, ViewShape, parse, register, unregister
from hydraprune.sparsity.patterns.ffn_channels import FfnChannels
from hydraprune.sparsity.patterns.heads import Heads
from hydraprune.sparsity.plans import Plan, Plans, block, custom, dense, ffn_channels, heads, lock, mixed, n_of_m, slim
from hydraprune.sparsity.posttraining import (
    Calibration,
    MaskDecision,
    PostTraining,
    PruningTask,
    RetrainFree,
    SparseGpt,
    Wanda,
    ignore_padding,
)
from hydraprune.sparsity.progressive import AtOnce, Progressive
from hydraprune.sparsity.pruners.base import Pruner, Units
from hydraprune.sparsity.pruners.distributed_state import distributed_state_dict, load_distributed_state_dict
from hydraprune.sparsity.pruners.factory import PrunerFactory
from hydraprune.sparsity.regularizers import GroupLasso, Regularizer, Unregularized
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
from hydraprune.sparsity.validation import check_choice, check_number, check_whole

# Names of earlier versions.
Keep = LockZeros
only = ignore_padding

__all__ = [
    "ALL_STEPS",
    "AtOnce",
    "Block",
    "BlockMask",
    "Budget",
    "Calibration",
    "Cos",
    "Coverage",
    "Criterion",
    "Cube",
    "Cubic",
    "DenseWeight",
    "Duration",
    "Exp",
    "Family",
    "FfnChannels",
    "Fisher",
    "Gradient",
    "GroupLasso",
    "Heads",
    "Hold",
    "Keep",
    "LayerSparsity",
    "Layers",
    "Linear",
    "LockZeros",
    "Magnitude",
    "MaskDecision",
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
    "PrunedWeight",
    "Pruner",
    "PrunerFactory",
    "PruningTask",
    "Reduce",
    "Regularizer",
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
    "StepHooks",
    "Structure",
    "Threshold",
    "Units",
    "Unregularized",
    "Unscored",
    "Updates",
    "ViewShape",
    "Wanda",
    "Weight",
    "add_decayed",
    "attach",
    "block",
    "cheapest",
    "check_choice",
    "check_number",
    "check_whole",
    "choose",
    "coverage",
    "custom",
    "dense",
    "distributed_state_dict",
    "exact",
    "ffn_channels",
    "given",
    "heads",
    "holds_pattern",
    "hooked",
    "ignore_padding",
    "in_steps",
    "layer_sparsity",
    "load_distributed_state_dict",
    "lock",
    "mixed",
    "model_sparsity",
    "n_of_m",
    "obeyed_pattern",
    "only",
    "parse",
    "register",
    "slim",
    "steps_remembered",
    "unregister",
    "use_compiled",
    "zeros_of",
]
