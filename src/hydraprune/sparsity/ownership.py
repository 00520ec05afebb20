"""Ownership: whether the weights that a pruner masks are still those of its model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layer_weights import is_layer
from hydraprune.sparsity.layouts import Weight
from hydraprune.sparsity.shards import reshard

# A module, the name of one of its parameters or children, and that parameter or child.
_Link = tuple[nn.Module, str, object]


class Ownership:
    """The modules through which a model holds some weights.

    Every check follows these links and compares objects, which takes microseconds; the model is searched only where a
    link is broken: a layer put into a wrapper still holds its weight, a replaced one does not.

    Args:
        weights: those without a model (`Weight.model`) are not checked.
    """

    def __init__(self, weights: Sequence[Weight]) -> None:
        self._weights = [weight for weight in weights if weight.model is not None]
        self._parameters: list[_Link] = []
        self._children: list[_Link] = []
        self._find()

    def check(self) -> None:
        """Refuse weights that the model does not use any more.

        Raises:
            SparsityError: a layer of the model holds another parameter than the one that is masked.
        """
        if self._broken():
            # A forward pass without a backward leaves whole weights in modules of `fully_shard`.
            for model in {id(weight.model): weight.model for weight in self._weights}.values():
                if model is not None:
                    reshard(model)
            if self._broken():
                self._find()

    def _broken(self) -> bool:
        """Whether a link is."""
        kept = all(module._parameters.get(name) is held for module, name, held in self._parameters)
        return not (kept and all(module._modules.get(name) is held for module, name, held in self._children))

    def _find(self) -> None:
        """Find the links to every weight.

        Raises:
            SparsityError: no layer holds one of them.
        """
        packed = {id(weight.parameter) for weight in self._weights if weight.packed}
        holders: dict[int, tuple[nn.Module, str]] = {}
        parents: dict[int, _Link] = {}
        for model in {id(weight.model): weight.model for weight in self._weights}.values():
            assert model is not None
            for module in model.modules():
                if is_layer(module) and (held := module._parameters.get("weight")) is not None:
                    holders.setdefault(id(held), (module, "weight"))
                for name, parameter in module._parameters.items():
                    if id(parameter) in packed:
                        holders.setdefault(id(parameter), (module, name))
                for name, child in module._modules.items():
                    if child is not None:
                        parents.setdefault(id(child), (module, name, child))
        self._refuse_replaced(holders)
        self._parameters = [(*holders[id(weight.parameter)], weight.parameter) for weight in self._weights]
        children: dict[int, _Link] = {}
        for module, _, _ in self._parameters:
            # Up to the model, or to a module whose links are known.
            while id(module) in parents and id(module) not in children:
                children[id(module)] = parents[id(module)]
                module = parents[id(module)][0]
        self._children = list(children.values())

    def _refuse_replaced(self, holders: Collection[int]) -> None:
        lost = [weight.name for weight in self._weights if id(weight.parameter) not in holders]
        if lost:
            more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
            raise SparsityError(
                f"{lost[0]}{more} was replaced in the model after attach, so that the masks would be those of a tensor "
                "that the model does not use",
                cure="call attach again and load this pruner's state_dict() into the new pruner, or change weights in "
                "place: load_state_dict without assign=True, or weight.copy_()",
            )
