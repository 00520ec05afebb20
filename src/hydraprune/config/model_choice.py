"""The model that a command line names: a choice of conf/model/, or a checkpoint by its path alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydraprune.config.composition import conf_dir
from hydraprune.config.schema import override_key
from hydraprune.errors import UserError

CHECKPOINT = "checkpoint"
# Words that choose a model themselves, or a file that does.
_CHOOSING = {"model", "experiment", "matrix", "demo_matrix"}
# Last parts of a path that say nothing about the model.
_GENERAL = re.compile(r"(model|checkpoint|pytorch_model|final|best|last|weights)([-_]?\d+)?|\d+", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def with_model_choice(words: Sequence[str]) -> list[str]:
    """Overrides in which `model.path=` or `dense.source=` without a choice of model has `model=checkpoint` before it.

    Otherwise the checkpoint would have the name and the recipe of the default model. With `dense.source` alone that is
    the path of the model, too.
    """
    keys = [override_key(word) for word in words if not word.startswith("-")]
    named = [key for key in ("model.path", "dense.source") if key in keys]
    if not named or _CHOOSING & set(keys) or (named == ["dense.source"] and "dense.source=auto" in words):
        return list(words)
    place = next(i for i, word in enumerate(words) if override_key(word) == named[0])
    chosen = [f"model={CHECKPOINT}", *(["model.path=${dense.source}"] if named == ["dense.source"] else [])]
    return [*words[:place], *chosen, *words[place:]]


def check_model_name(config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
    """Refuse a checkpoint under the name of another choice of model, whose published figures would stand beside it.

    Raises:
        UserError: naming the choice.
    """
    name = str(config["model"].get("name"))
    if choices.get("model") == CHECKPOINT and name in _known():
        raise UserError(
            f"is the name of conf/model/{name}.yaml",
            key="model.name",
            value=name,
            cure=f"give another, or type model={name} if the checkpoint is that model",
        )


def model_name(path: object) -> str:
    """The name of a checkpoint: the last part of its path that says something, and no name of another choice."""
    parts = [part for part in re.split(r"[/\\]", str(path)) if part not in ("", ".", "..", "~")] or ["model"]
    if _COMMIT.fullmatch(parts[-1]) and parts[-2:-1] == ["snapshots"] and len(parts) > 2:
        # The hub's cache: models--organization--name/snapshots/<commit>
        name = parts[-3].rsplit("--", 1)[-1]
    elif _GENERAL.fullmatch(parts[-1]) and len(parts) > 1:
        name = f"{parts[-2]}-{parts[-1]}"
    else:
        name = parts[-1]
    return f"{name}-{CHECKPOINT}" if name in _known() else name


def _known() -> set[str]:
    return {file.stem for file in (conf_dir() / "model").glob("*.yaml")}
