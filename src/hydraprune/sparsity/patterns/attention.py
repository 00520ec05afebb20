"""Attentions of a model: which query, key, value and output projection belong together, and their heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydraprune.sparsity.errors import SparsityError
from hydraprune.sparsity.layouts import Weight, model_block_of
from hydraprune.sparsity.wrappers import named_modules

JOINT = "query_key_value"
ROLES = ("query", "key", "value", "attention_output")
# Attributes in which attention modules hold their number of query heads.
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head")


@dataclass(frozen=True)
class Attention:
    """The four weights of one attention.

    Args:
        name: that of its block of the model; what the names of the four share, where the block has several attentions.
        weights: by role.
    """

    name: str
    weights: Mapping[str, Weight]

    def units(self, heads: int) -> tuple[int, dict[str, int]]:
        """How many heads can be pruned, and how many channels each of the four weights has for one of them.

        In grouped-query attention several query heads read one key-value head, so they are pruned with it. How many
        key-value heads there are follows from the shapes: key has as many rows for one of them as query for a head.

        Args:
            heads: query heads.

        Raises:
            SparsityError: the shapes are not those of so many heads.
        """
        channels = {role: _channels(role, weight) for role, weight in self.weights.items()}
        for role in ("query", "attention_output"):
            if channels[role] % heads:
                raise SparsityError(
                    f"{self.weights[role].name}: {heads} heads do not divide its {channels[role]} channels"
                )
        # Of one head: what query and key compare, and what value gives.
        compared, given = channels["query"] // heads, channels["attention_output"] // heads
        shared = channels["key"] // compared
        if channels["key"] != shared * compared or channels["value"] != shared * given or heads % max(1, shared):
            shapes = ", ".join(f"{role} {channels[role]}" for role in ROLES)
            raise SparsityError(
                f"{self.weights['key'].name}: channels ({shapes}) are not those of {heads} query heads that share "
                f"key-value heads evenly",
                cure="exclude this attention",
            )
        group = heads // shared
        return shared, {"query": group * compared, "key": compared, "value": given, "attention_output": group * given}

    def check_heads(self, heads: int) -> None:
        """Refuse a number of query heads that is not the one in the attention's module, if that has one.

        Raises:
            SparsityError: naming the module's number.
        """
        query = self.weights["query"]
        if query.model is None:
            return
        module = dict(named_modules(query.model))[query.layer.rpartition(".")[0]]
        own = next((found for name in _HEADS if isinstance(found := getattr(module, name, None), int)), heads)
        if own != heads:
            raise SparsityError(
                f"heads: {query.layer} is of an attention with {own} heads, and the family has {heads}",
                cure="exclude this attention, or say how many heads there are",
            )


def _channels(role: str, weight: Weight) -> int:
    """Channels of a weight that belong to heads: rows, but columns of the output projection."""
    rows, _, columns = weight.view_shape
    return columns if role == "attention_output" else rows


def attentions_of(weights: Sequence[tuple[str, Weight]]) -> list[Attention]:
    """The attentions that some weights make up, in the order in which the first weight of each is given.

    Four weights belong together whose names share most, within one block of the model: those of self-attention and
    those of cross-attention in the same block.

    Args:
        weights: with their roles.

    Raises:
        SparsityError: one of the four is missing, is there twice, or belongs to none by its name.
    """
    groups: dict[tuple[str, ...], dict[str, Weight]] = {}
    owners: dict[str, tuple[str, ...]] = {}
    for _, weight in weights:
        group = {role: partner(role, weight, weights) for role in ROLES}
        names = tuple(group[role].layer for role in ROLES)
        groups[names] = group
        for name in names:
            if owners.setdefault(name, names) != names:
                raise SparsityError(
                    f"heads: it is not clear to which attention {name} belongs: to {', '.join(owners[name])} or to "
                    f"{', '.join(names)}",
                    cure="choose all four weights of each attention",
                )
    blocks = [model_block_of(group["query"].layer) for group in groups.values()]
    return [
        Attention(block if blocks.count(block) == 1 else _shared_name(group), group)
        for block, group in zip(blocks, groups.values(), strict=True)
    ]


def partner(role: str, weight: Weight, weights: Sequence[tuple[str, Weight]]) -> Weight:
    """The weight of a role that belongs to the same attention as `weight`: itself, if the role is its own.

    Args:
        weights: to choose from, with their roles.

    Raises:
        SparsityError: none has the role, or several do.
    """
    block = model_block_of(weight.layer)
    found = [(_shared(weight, other), other) for own, other in weights if own == role]
    found = [(shared, other) for shared, other in found if model_block_of(other.layer) == block]
    if not found:
        raise SparsityError(f"heads: {block} has no {role} among the chosen layers; a head goes in all four")
    most = max(shared for shared, _ in found)
    nearest = [other for shared, other in found if shared == most]
    if len(nearest) > 1:
        raise SparsityError(
            f"heads: {nearest[0].layer} and {nearest[1].layer} both are {role} to {weight.layer}",
            cure="exclude one of the two",
        )
    return nearest[0]


def _shared(one: Weight, other: Weight) -> int:
    """How many parts the names of two layers share before the first that differs."""
    pairs = list(zip(one.layer.split("."), other.layer.split("."), strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs) + (one.layer == other.layer))


def _shared_name(group: Mapping[str, Weight]) -> str:
    parts = group["query"].layer.split(".")
    return ".".join(parts[: min(_shared(group["query"], group[role]) for role in ROLES[1:])])
