"""The config of the dense run that a sparse run starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from hydraprune.config.composition import Compose, literal, plain, resolved
from hydraprune.config.schema import flattened, nearest, override_key, unknown_override
from hydraprune.errors import UserError, single_line

# `dense.source` where the dense run is found in `run.root`, or trained first.
AUTO = "auto"

# Groups and keys that a dense run takes from the sparse run that needs it.
_SHARED_GROUPS = ("model", "task")
_SHARED_KEYS = (
    "seed",
    "training.precision",
    "training.device",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "runtime",
    "cache",
    "run.root",
    "tracker",
)

_NOT_FOR_OVERRIDES = {
    *("model", "task", "seed", "run", "runtime", "pattern", "phase", "pruner", "scheduler"),
    *("progressive", "regularizer"),
    *("dense", "experiment", "hydra", "sweep"),
}


def dense_key(sparse: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    """A text that is equal for sparse runs that start from the same dense run."""
    nodes = (*_SHARED_GROUPS, *(key.partition(".")[0] for key in _SHARED_KEYS))
    shared = {key: sparse.get(key) for key in nodes if key != "training"}
    training = {key: value for key, value in sparse["training"].items() if f"training.{key}" in _SHARED_KEYS}
    return repr((shared, training, sparse["dense"]["overrides"], [choices.get(group) for group in _SHARED_GROUPS]))


def dense_config(
    sparse: Mapping[str, Any], choices: Mapping[str, str], compose: Compose
) -> tuple[dict[str, Any], list[str]]:
    """The resolved config of the dense run of the same model, task, seed, precision and threads.

    It is what `pattern=dense` composes to with the same model and task, changed by `dense.overrides`.

    Args:
        sparse: the sparse run's resolved config.
        choices: group -> choice of the sparse run.

    Returns:
        (plain values, the overrides that it was composed from)

    Raises:
        UserError: `dense.overrides` names a key that is not there, or one that it may not change.
    """
    typed = [str(override) for override in sparse["dense"]["overrides"]]
    for key in map(override_key, typed):
        if key.split(".")[0] in _NOT_FOR_OVERRIDES:
            raise UserError(
                f"{key} is the sparse run's, or decides what the dense run is",
                key="dense.overrides",
                value=typed,
                cure="override training, optimizer, lr_scheduler or distill",
            )
    words = [f"{group}={choices[group]}" for group in _SHARED_GROUPS if group in choices]
    words += ["pattern=dense", *typed]
    values = plain(_composed(words, typed, compose))
    # `dense.overrides` take precedence over shared keys.
    own = {key: _select(values, key) for key in map(override_key, (word for word in typed if word[0] != "~"))}
    for key in (*_SHARED_GROUPS, *_SHARED_KEYS):
        _share(values, sparse, key)
    for key, value in own.items():
        _put(values, key, value)
    return resolved(OmegaConf.create(values)), words


def _composed(words: Sequence[str], typed: list[str], compose: Compose) -> DictConfig:
    try:
        return compose(words)
    except HydraException as error:
        key = unknown_override(error)
        why = single_line(error)
        if key is not None:
            why = f"{key}: no such key{nearest(key, flattened(plain(compose(['pattern=dense']))))}"
        raise UserError(why, key="dense.overrides", value=typed) from None


def _share(values: dict[str, Any], sparse: Mapping[str, Any], key: str) -> None:
    *above, leaf = key.split(".")
    node, given = values, sparse
    for part in above:
        node, given = node[part], given[part]
    if leaf in given:
        node[leaf] = literal(given[leaf])
    elif above:
        node.pop(leaf, None)  # as in ~training.device


def _select(values: Mapping[str, Any], key: str) -> Any:
    node: Any = values
    for part in key.split("."):
        node = node[part]
    return node


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *above, leaf = key.split(".")
    node = values
    for part in above:
        node = node[part]
    node[leaf] = value
