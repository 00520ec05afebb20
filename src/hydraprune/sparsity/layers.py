"""Layers to prune: chosen by role, by name and by module type."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layer_weights import layer_weight, layers_of, packed_weight, parameters_beside_layers
from hydraprune.sparsity.layouts import LAYOUTS, PACKED, Weight, module_type
from hydraprune.sparsity.validation import check_choice, check_whole
from hydraprune.sparsity.wrappers import named_modules


@dataclass(frozen=True)
class Family:
    """The names that a model family gives its layers.

    Args:
        name: the family, for messages.
        roles: role -> regular expressions that match whole module names.
        outside: exact names of modules outside the encoder (pooler, classifier); they and all inside them are never
            pruned.
        heads: attention heads of query in every layer of this model (`num_attention_heads`); None: not known.
        joint: how the rows of a joint projection (role `query_key_value`) are ordered: `parts`: all of query, then all
            of key, then all of value; `heads`: query, key and value of one head after the other. None: not known.
        may_lack_outside: whether a model may lack some of `outside`, where one family stands for models with several
            kinds of heads. Otherwise `attach` refuses a name that no module has.

    Raises:
        SparsityError: roles or names are no texts, a role's expression is none, or `heads` is no positive number.
    """

    name: str
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    outside: Sequence[str] = ()
    heads: int | None = None
    joint: Literal["parts", "heads"] | None = None
    may_lack_outside: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.roles, Mapping):
            raise SparsityError("must map roles to regular expressions", key="roles", value=self.roles)
        roles = {role: words(f"roles.{role}", patterns) for role, patterns in self.roles.items()}
        for role, patterns in roles.items():
            check_expressions(f"roles.{role}", patterns)
        object.__setattr__(self, "roles", roles)
        object.__setattr__(self, "outside", words("outside", self.outside))
        if self.heads is not None:
            check_whole("heads", self.heads, 1)
        if self.joint is not None:
            check_choice("joint", self.joint, ("parts", "heads"))
        if not isinstance(self.may_lack_outside, bool):
            raise SparsityError("must be true or false", key="may_lack_outside", value=self.may_lack_outside)

    def role_of(self, module_name: str) -> str | None:
        """The role that `module_name` plays, if any."""
        for role, patterns in self.roles.items():
            if any(re.fullmatch(pattern, module_name) for pattern in patterns):
                return role
        return None

    def is_outside(self, module_name: str) -> bool:
        """Whether a module is one of those outside the encoder, or inside one of them."""
        return any(module_name == name or module_name.startswith(f"{name}.") for name in self.outside)

    def check(self, model: nn.Module) -> None:
        """Refuse a name in `outside` that no module of `model` has.

        Raises:
            SparsityError: with the name, and those that are like it.
        """
        if self.may_lack_outside:
            return
        names = [name for name, _ in named_modules(model) if name]
        for outside in self.outside:
            if outside not in names:
                alike = difflib.get_close_matches(outside, names, 3) or names[-3:]
                raise SparsityError(
                    "no module has this name, so nothing would be left out",
                    key="family.outside",
                    value=outside,
                    cure=f"names look like {', '.join(alike)}" if alike else "leave it out: the model is one module",
                )


def words(key: str, value: object) -> tuple[str, ...]:
    """A tuple of words; a lone string is one word, not a sequence of letters.

    Raises:
        SparsityError: `value` is no text or list of texts; with `key`.
    """
    if not isinstance(value, (str, Sequence, Set)) or isinstance(value, bytes):
        raise SparsityError("must be text or a list of texts", key=key, value=value)
    found = (value,) if isinstance(value, str) else tuple(value)
    for word in found:
        if not isinstance(word, str):
            raise SparsityError(f"must be text, not {type(word).__name__}", key=key, value=word)
    return found


def check_expressions(key: str, expressions: Sequence[str]) -> None:
    """Refuse what is no regular expression.

    Raises:
        SparsityError: with the key and the expression.
    """
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            raise SparsityError(f"not a regular expression ({error})", key=key, value=expression) from None


# A role may be asked for by the name of its group.
ROLE_GROUPS = {
    "attention": ("query", "key", "value", "query_key_value"),
    "ffn": ("ffn_in", "ffn_gate", "ffn_gate_in", "ffn_out"),
}


@dataclass(frozen=True)
class Layers:
    """A choice of layers; by default every layer of the allowed types inside the encoder.

    Args:
        roles: roles of the model family (`query`, `attention_output`, `ffn_in`, ...), or the groups
            `attention` (query, key, value) and `ffn`.
        include: regular expressions searched in module names; joined with `roles`.
        exclude: regular expressions searched in module names; they win.
        types: module types, of Linear, Conv1d, Conv2d and Conv1D (Hugging Face's).
        packed: weights that are not those of such layers, beside them: regular expression searched in parameter
            names -> how they are stored: `linear` [out, in], as `in_proj_weight` of `nn.MultiheadAttention`;
            `transposed` [in, out]; `experts` [experts, out, in]; `transposed_experts` [experts, in, out].

    Raises:
        SparsityError: an unknown type or a broken expression, at construction; a selector that
            matches nothing, in `select`.
    """

    roles: Sequence[str] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    types: Sequence[str] = tuple(LAYOUTS)
    packed: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for key in ("roles", "include", "exclude", "types"):
            object.__setattr__(self, key, words(key, getattr(self, key)))
        for key in ("include", "exclude"):
            check_expressions(key, getattr(self, key))
        for name in self.types:
            if name not in LAYOUTS:
                raise SparsityError(f"prunable module types are {', '.join(LAYOUTS)}", key="types", value=name)
        if self.packed is None:
            object.__setattr__(self, "packed", {})
        if not isinstance(self.packed, Mapping):
            raise SparsityError("must map parameter names to layouts", key="packed", value=self.packed)
        check_expressions("packed", list(self.packed))
        for layout in self.packed.values():
            if layout not in PACKED:
                raise SparsityError(f"layouts are {', '.join(PACKED)}", key="packed", value=layout)

    def select(self, model: nn.Module, family: Family) -> list[Weight]:
        """The chosen weights of `model`, in the order in which it registers them.

        Raises:
            SparsityError: a selector matches nothing, no layer is left, or a weight is not a parameter.
        """
        layers = {n: module for n, module in layers_of(model).items() if module_type(module) in self.types}
        candidates = {name: module for name, module in layers.items() if not family.is_outside(name)}
        chosen = self._by_role(candidates, family) | self._by_name("include", candidates, layers)
        if not self.roles and not self.include:
            chosen = set(candidates)
        # Layers outside the encoder are never chosen; excluding them as well is no mistake.
        others = parameters_beside_layers(model) if self.packed else {}
        chosen -= self._by_name("exclude", {**layers, **others})
        packed = self._packed(model, family)
        if not chosen and not packed:
            raise SparsityError(
                f"no layer is left to prune: the model has {len(candidates)} of types {', '.join(self.types)} inside "
                f"its encoder",
                cure="loosen roles, include or exclude",
            )
        return [*(layer_weight(name, module, model) for name, module in candidates.items() if name in chosen), *packed]

    def _packed(self, model: nn.Module, family: Family) -> list[Weight]:
        """The weights that are chosen by the names of their parameters."""
        found: dict[str, Weight] = {}
        others = {name: held for name, held in parameters_beside_layers(model).items() if not family.is_outside(name)}
        for expression, layout in (self.packed or {}).items():
            names = [name for name in others if re.search(expression, name)]
            if not names:
                example = max(others, key=lambda name: others[name][0].numel(), default="none")
                raise SparsityError(
                    "matches no parameter that is not a layer's weight", key="packed", value=expression,
                    cure=f"names look like {example}",
                )  # fmt: skip
            for name in names:
                weight = packed_weight(name, others[name][0], layout, model)
                if name in found and found[name].layout != weight.layout:
                    raise SparsityError(f"{name} is given two layouts", key="packed", value=expression)
                if not self.excludes(name):
                    found[name] = weight
        return list(found.values())

    def excludes(self, name: str) -> bool:
        """Whether `exclude` finds the name of a layer."""
        return any(re.search(expression, name) for expression in self.exclude)

    def _by_role(self, candidates: Mapping[str, nn.Module], family: Family) -> set[str]:
        chosen: set[str] = set()
        for role in self.roles:
            wanted = ROLE_GROUPS.get(role, (role,))
            found = {name for name in candidates if family.role_of(name) in wanted}
            if not found:
                groups = [name for name, roles in ROLE_GROUPS.items() if set(roles) & family.roles.keys()]
                known = ", ".join([*family.roles, *groups]) or "none"
                raise SparsityError(
                    f"matches no layer of this {family.name} model", key="roles", value=role, cure=f"its roles: {known}"
                )
            chosen |= found
        return chosen

    def _by_name(self, key: str, candidates: Mapping[str, object], outside: Iterable[str] = ()) -> set[str]:
        chosen: set[str] = set()
        for expression in getattr(self, key):
            found = {name for name in candidates if re.search(expression, name)}
            if not found and any(re.search(expression, name) for name in outside):
                raise SparsityError(
                    "matches only layers outside the encoder, which stay dense",
                    key=key,
                    value=expression,
                    cure="say which modules are outside (Family.outside) to prune these too",
                )
            if not found:
                example = next(iter(candidates), "none")
                raise SparsityError(
                    "matches no prunable layer", key=key, value=expression, cure=f"layer names look like {example}"
                )
            chosen |= found
        return chosen
