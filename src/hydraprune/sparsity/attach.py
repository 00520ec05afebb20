"""Pruners for a model: plans applied to its layers and to the steps of its training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from hydraprune.sparsity.coverage import unkept_zeros
from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.groups import Structure, structures_of
from hydraprune.sparsity.layer_weights import is_layer
from hydraprune.sparsity.layers import Family
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.plans import Plan
from hydraprune.sparsity.posttraining.base import Calibration
from hydraprune.sparsity.pruners.base import Pruner
from hydraprune.sparsity.pruners.factory import PrunerFactory
from hydraprune.sparsity.sharded_plans import check_sharded
from hydraprune.sparsity.shards import reshard
from hydraprune.sparsity.wrappers import named_modules, named_parameters

log = logging.getLogger(__name__)

# Layers that a warning names; the others are counted.
_MOST_NAMED = 3


def attach(
    model: nn.Module,
    plans: Mapping[str, Plan],
    family: Family,
    steps: int,
    steps_per_epoch: int | None = None,
    calibration: Calibration | None = None,
) -> tuple[Pruner, ...]:
    """The pruners that carry out `plans` on `model` in a training of `steps` optimizer steps.

    They mask the parameters that `model` has now, in place. If one of them is replaced in it later (by another module
    or `nn.Parameter`, or by `load_state_dict(assign=True)`), the next `observe` or `project` refuses that by name:
    attach again. They cannot see that a copy of the model (`copy.deepcopy`) is trained in its place, or that `model`
    itself is replaced in a larger one: attach to what is trained, and see `Pruner.apply_to` for copies.

    Zeros that the model has already are kept in the weights that a pruner takes. Where other weights have zeros, a
    warning says how many there are.

    Args:
        plans: by the names of the pruners.
        calibration: runs `model` in evaluation mode over as many of the first batches as it is asked
            for, and yields their losses; post-training methods need it when they prune.

    Raises:
        SparsityError: a weight is claimed by two pruners, one of the plans is impossible, or the family names a
            module outside the encoder that the model does not have.
    """
    _refuse_adapters(model)
    reshard(model)
    family.check(model)
    attachment = _Attachment(model, family, steps, steps_per_epoch, calibration)
    pruners: list[Pruner] = []
    for name, plan in plans.items():
        try:
            pruners.append(attachment.pruner(name, plan))
        except SparsityError as error:
            raise error.of(name) from None
    if pruners and steps:
        _report_unkept_zeros(model, pruners)
    return tuple(pruners)


def _refuse_adapters(model: nn.Module) -> None:
    """Refuse a model in which adapters of peft are around layers: merged, they would fill in the zeros.

    Raises:
        SparsityError: naming one of them.
    """
    for name, module in named_modules(model):
        if isinstance(getattr(module, "base_layer", None), nn.Module):
            raise SparsityError(
                f"{name} is a layer with an adapter, which would fill in its zeros when it is merged",
                cure="attach before adapters are added, and mask their updates: "
                "hydraprune.integrations.adapters.mask_adapters; or merge them first",
            )


def _report_unkept_zeros(model: nn.Module, pruners: Sequence[Pruner]) -> None:
    """Log zeros that a model has already and that no pruner keeps."""
    found = unkept_zeros(model, pruners)
    if not found:
        return
    named = [f"{weight.name} ({weight.zeros:,} of {weight.parameters:,})" for weight in found[:_MOST_NAMED]]
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    log.warning(
        "%s of %s weights in layers that no pruner takes are zero now and will be trained: %s%s. To keep these zeros, "
        "choose the layers too or freeze them",
        f"{sum(weight.zeros for weight in found):,}",
        f"{sum(weight.parameters for weight in found):,}",
        ", ".join(named),
        more,
    )


@dataclass(frozen=True)
class _Attachment:
    """A model whose weights are claimed by one pruner after the other."""

    model: nn.Module
    family: Family
    steps: int
    steps_per_epoch: int | None
    calibration: Calibration | None
    # id of a parameter -> (the pruner that claims it, the name by which it does).
    owners: dict[int, tuple[str, str]] = field(default_factory=dict)

    def pruner(self, name: str, plan: Plan) -> Pruner:
        if plan.schedule is None or plan.criterion is None:
            raise SparsityError(f"pruner {name}: the plan has no {'schedule' if plan.criterion else 'criterion'}")
        # First: a schedule that does not suit the method may not suit the training's length either.
        plan.criterion.check_plan(plan)
        weights = self._select(plan)
        self._claim(weights, name)
        self._refuse_tied(weights)
        try:
            updates = plan.schedule.over(self.steps, self.steps_per_epoch)
        except SparsityError as error:
            raise error if error.key == "scheduler" else error.under("scheduler") from None
        structures = structures_of(plan.pattern, weights, self.family)
        _refuse_misfits(plan, structures)
        check_sharded(plan, structures)
        holders = {name: module for name, _, module in named_parameters(self.model)}
        modules = {weight.name: holders[weight.name] for weight in weights}
        factory = PrunerFactory(name, plan, updates, structures, modules, self.calibration)
        return plan.criterion.make_pruner(factory)

    def _select(self, plan: Plan) -> list[Weight]:
        try:
            return plan.layers.select(self.model, self.family)
        except SparsityError as error:
            raise (error.under("layers") if error.key else error) from None

    def _claim(self, weights: Sequence[Weight], pruner: str) -> None:
        """Note who owns each parameter; tied weights are one parameter."""
        for weight in weights:
            owner, known_as = self.owners.setdefault(id(weight.parameter), (pruner, weight.name))
            if owner == pruner and known_as != weight.name:
                raise SparsityError(
                    f"{weight.name} is tied to {known_as}, so they are one weight", cure="exclude one of the two"
                )
            if (owner, known_as) != (pruner, weight.name):
                tied = "" if known_as == weight.name else f" (tied to {known_as})"
                raise SparsityError(
                    f"{weight.name}{tied} is claimed by pruner {owner} and by pruner {pruner}",
                    cure="a weight belongs to at most one: exclude it from the other",
                )

    def _refuse_tied(self, weights: Sequence[Weight]) -> None:
        """Refuse a weight that is tied to one that cannot be excluded, such as an embedding."""
        chosen = {weight.name for weight in weights}
        names: dict[int, list[str]] = {}
        for name, parameter, module in named_parameters(self.model):
            # Of two prunable layers that share a weight, one may be excluded: `_claim` reports these.
            if name not in chosen and not is_layer(module):
                names.setdefault(id(parameter), []).append(name)
        for weight in weights:
            others = names.get(id(weight.parameter))
            if others:
                raise SparsityError(
                    f"{weight.name} is tied to {others[0]}, which would be pruned with it",
                    cure="exclude the layer",
                    setting=_exclusion(weight),
                )


def _exclusion(weight: Weight) -> tuple[str, str]:
    """The setting that excludes a weight's layer."""
    return "layers.exclude", f"['^{weight.name if weight.packed else weight.layer}$']"


def _refuse_misfits(plan: Plan, structures: Sequence[Structure]) -> None:
    members = [member for structure in structures for member in structure.members]
    misfits = [(m.weight, why) for m in members if (why := m.pattern.weight_misfit(m.weight)) is not None]
    if misfits:
        weight, why = misfits[0]
        more = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
        raise SparsityError(
            f"{plan.pattern.name} does not fit {weight.name} {tuple(weight.parameter.shape)}: {why}{more}",
            cure="choose another shape or exclude the layer",
            setting=_exclusion(weight),
        )
