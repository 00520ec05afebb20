"""Layers to prune: chosen by role, by name and by module type."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layouts import LAYOUTS, Weight, module_type


@dataclass(frozen=True)
class Family:
    """The names that a model family gives its layers.

    Args:
        name: the family, for messages.
        roles: role -> regular expressions that match whole module names.
        outside: exact names of modules outside the encoder (pooler, classifier); never pruned.
        heads: attention heads per layer of this model; None: not known.
    """

    name: str
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    outside: Sequence[str] = ()
    heads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "roles", {role: words(patterns) for role, patterns in self.roles.items()})
        object.__setattr__(self, "outside", words(self.outside))

    def role_of(self, module_name: str) -> str | None:
        """The role that `module_name` plays, if any."""
        for role, patterns in self.roles.items():
            if any(re.fullmatch(pattern, module_name) for pattern in patterns):
                return role
        return None


def words(value: str | Sequence[str]) -> tuple[str, ...]:
    """A tuple of words; a lone string is one word, not a sequence of letters."""
    return (value,) if isinstance(value, str) else tuple(value)


# A role may be asked for by the name of its group.
ROLE_GROUPS = {"attention": ("query", "key", "value"), "ffn": ("ffn_in", "ffn_out")}


@dataclass(frozen=True)
class Layers:
    """A choice of layers; by default every layer of the allowed types inside the encoder.

    Args:
        roles: roles of the model family (`query`, `attention_output`, `ffn_in`, ...), or the groups
            `attention` (query, key, value) and `ffn`.
        include: regular expressions searched in module names; joined with `roles`.
        exclude: regular expressions searched in module names; they win.
        types: module types, of Linear, Conv1d, Conv2d and Conv1D (Hugging Face's).

    Raises:
        SparsityError: an unknown type or a broken expression, at construction; a selector that
            matches nothing, in `select`.
    """

    roles: Sequence[str] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    types: Sequence[str] = tuple(LAYOUTS)

    def __post_init__(self) -> None:
        for key in ("roles", "include", "exclude", "types"):
            given = words(getattr(self, key))
            object.__setattr__(self, key, given)
            for word in given:
                if not isinstance(word, str):
                    raise SparsityError(f"must be text, not {type(word).__name__}", key=key, value=word)
        for key in ("include", "exclude"):
            for expression in getattr(self, key):
                try:
                    re.compile(expression)
                except re.error as error:
                    raise SparsityError(f"not a regular expression ({error})", key=key, value=expression) from None
        for name in self.types:
            if name not in LAYOUTS:
                raise SparsityError(f"prunable module types are {', '.join(LAYOUTS)}", key="types", value=name)

    def select(self, model: nn.Module, family: Family) -> list[Weight]:
        """The chosen weights of `model`, in the order in which it registers them.

        Raises:
            SparsityError: a selector matches nothing, no layer is left, or a weight is not a parameter.
        """
        layers = {name: module for name, module in model.named_modules() if module_type(module) in self.types}
        candidates = {name: module for name, module in layers.items() if name not in family.outside}
        chosen = self._by_role(candidates, family) | self._by_name("include", candidates)
        if not self.roles and not self.include:
            chosen = set(candidates)
        # Layers outside the encoder are never chosen; excluding them as well is no mistake.
        chosen -= self._by_name("exclude", layers)
        if not chosen:
            raise SparsityError(
                f"no layer is left to prune: the model has {len(candidates)} of types {', '.join(self.types)} inside "
                f"its encoder",
                cure="loosen roles, include or exclude",
            )
        weights = []
        for name, module in candidates.items():
            if name in chosen:
                if not isinstance(module.weight, nn.Parameter):
                    raise SparsityError(
                        f"{name}: its weight is computed (parametrized), not a parameter", cure="exclude it"
                    )
                kind = module_type(module)
                assert kind is not None
                weights.append(Weight(f"{name}.weight" if name else "weight", module.weight, LAYOUTS[kind]))
        return weights

    def _by_role(self, candidates: Mapping[str, nn.Module], family: Family) -> set[str]:
        chosen: set[str] = set()
        for role in self.roles:
            wanted = ROLE_GROUPS.get(role, (role,))
            found = {name for name in candidates if family.role_of(name) in wanted}
            if not found:
                known = ", ".join([*family.roles, *(g for g in ROLE_GROUPS if family.roles)]) or "none"
                raise SparsityError(
                    f"matches no layer of this {family.name} model", key="roles", value=role, cure=f"its roles: {known}"
                )
            chosen |= found
        return chosen

    def _by_name(self, key: str, candidates: Mapping[str, nn.Module]) -> set[str]:
        chosen: set[str] = set()
        for expression in getattr(self, key):
            found = {name for name in candidates if re.search(expression, name)}
            if not found:
                example = next(iter(candidates), "none")
                raise SparsityError(
                    "matches no prunable layer", key=key, value=expression, cure=f"layer names look like {example}"
                )
            chosen |= found
        return chosen
