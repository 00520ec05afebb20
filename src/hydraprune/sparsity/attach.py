"""Which pruner carries out which plan? Plans laid over a model and the steps of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure, apart
from hydraprune.sparsity.layers import Family
from hydraprune.sparsity.layouts import Weight, module_type
from hydraprune.sparsity.methods import Keep, SrSte
from hydraprune.sparsity.patterns.heads import Heads
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.posttraining.base import Calibration, PostTraining
from hydraprune.sparsity.pruners.base import Pruner
from hydraprune.sparsity.pruners.budgeted import refuse_parts
from hydraprune.sparsity.pruners.gradual import Gradual
from hydraprune.sparsity.pruners.lock import Lock
from hydraprune.sparsity.pruners.post_training import Calibrated, refuse_misfit_parts
from hydraprune.sparsity.pruners.straight_through import StraightThrough


def attach(
    model: nn.Module,
    plans: Mapping[str, Plan],
    family: Family,
    steps: int,
    steps_per_epoch: int | None = None,
    calibration: Calibration | None = None,
) -> tuple[Pruner, ...]:
    """The pruners that carry out `plans` on `model` in a training of `steps` optimizer steps.

    Args:
        calibration: runs `model` over the first batches that it is asked for, in evaluation mode, and
            yields their losses; post-training methods need it when they prune.

    Raises:
        SparsityError: a weight is claimed by two pruners, or whatever is wrong with one of them.
    """
    pruners: list[Pruner] = []
    owners: dict[int, tuple[str, str]] = {}
    for name, plan in plans.items():
        try:
            pruners.append(_pruner(name, plan, model, family, owners, (steps, steps_per_epoch), calibration))
        except SparsityError as error:
            error.pruner = name
            raise
    return tuple(pruners)


def _pruner(
    name: str,
    plan: Plan,
    model: nn.Module,
    family: Family,
    owners: dict[int, tuple[str, str]],
    length: tuple[int, int | None],
    calibration: Calibration | None,
) -> Pruner:
    if plan.schedule is None or plan.criterion is None:
        raise SparsityError(f"pruner {name}: the plan has no {'schedule' if plan.criterion else 'criterion'}")
    if isinstance(plan.criterion, PostTraining):
        refuse_misfit_parts(plan.criterion, plan)  # before a schedule complains of the training's length
    weights = plan.layers.select(model, family)
    _claim(weights, name, owners)
    _refuse_tied(weights, model)
    updates = plan.schedule.over(*length)
    structures = (
        plan.pattern.structures(weights, family) if isinstance(plan.pattern, Heads) else apart(weights, plan.pattern)
    )
    _refuse_misfits(plan, structures)
    if isinstance(plan.criterion, Keep):
        refuse_parts("pattern=lock", plan)
        return Lock(name, plan, updates, structures)
    if isinstance(plan.criterion, SrSte):
        return StraightThrough(name, plan, updates, structures)
    if isinstance(plan.criterion, PostTraining):
        modules = {w.name: model.get_submodule(w.name.removesuffix("weight").removesuffix(".")) for w in weights}
        return Calibrated(name, plan, updates, structures, modules, calibration)
    return Gradual(name, plan, updates, structures)


def _refuse_tied(weights: Sequence[Weight], model: nn.Module) -> None:
    """Refuse a weight that is also that of a part which nobody can exclude, such as an embedding."""
    chosen = {weight.name for weight in weights}
    places: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    for weight in weights:
        # Two prunable layers that share a weight are told apart elsewhere: of them one may be excluded.
        others = [name for name in places[id(weight.parameter)] if name not in chosen and not _prunable(name, model)]
        if others:
            layer = weight.name.removesuffix("weight").removesuffix(".")
            raise SparsityError(
                f"{weight.name} is tied to {others[0]}, which would be pruned with it; exclude the layer: "
                f"layers.exclude=['^{layer}$']"
            )


def _prunable(parameter: str, model: nn.Module) -> bool:
    return module_type(model.get_submodule(parameter.rpartition(".")[0])) is not None


def _refuse_misfits(plan: Plan, structures: Sequence[Structure]) -> None:
    members = [member for structure in structures for member in structure.members]
    misfits = [(m.weight, why) for m in members if (why := m.pattern.misfit(m.weight.view_shape)) is not None]
    if misfits:
        weight, why = misfits[0]
        more = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
        layer = weight.name.removesuffix("weight").removesuffix(".")
        raise SparsityError(
            f"{plan.pattern.name} does not fit {weight.name} {tuple(weight.parameter.shape)}: {why}{more}; "
            f"choose another shape or exclude the layer: layers.exclude=['^{layer}$']"
        )


def _claim(weights: Sequence[Weight], pruner: str, owners: dict[int, tuple[str, str]]) -> None:
    """Note who owns each parameter; tied weights are one parameter."""
    for weight in weights:
        owner, known_as = owners.setdefault(id(weight.parameter), (pruner, weight.name))
        if owner == pruner and known_as != weight.name:
            raise SparsityError(f"{weight.name} is tied to {known_as}, so they are one weight: exclude one of the two")
        if (owner, known_as) != (pruner, weight.name):
            tied = "" if known_as == weight.name else f" (tied to {known_as})"
            raise SparsityError(
                f"{weight.name}{tied} is claimed by pruner {owner} and by pruner {pruner}; "
                f"a weight belongs to at most one: exclude it from the other"
            )
