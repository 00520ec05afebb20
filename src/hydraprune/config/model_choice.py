"""The model that a command line names: a choice of conf/model/, or a checkpoint by its path alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydraprune.config.composition import conf_dir
from hydraprune.config.schema import override_key

CHECKPOINT = "checkpoint"
# Words that choose a model themselves, or a file that does.
_CHOOSING = {"model", "experiment", "matrix", "demo_matrix"}
# Last parts of a path that say nothing about the model.
_GENERAL = re.compile(r"(model|checkpoint|pytorch_model|final|best|last|weights)([-_]?\d+)?|\d+", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def with_model_choice(words: Sequence[str]) -> list[str]:
    """Overrides in which `model.path=...` without a choice of model has `model=checkpoint` before it.

    Otherwise the checkpoint would have the name and the recipe of the default model.
    """
    keys = [override_key(word) for word in words if not word.startswith("-")]
    if "model.path" not in keys or _CHOOSING & set(keys):
        return list(words)
    place = next(i for i, word in enumerate(words) if override_key(word) == "model.path")
    return [*words[:place], f"model={CHECKPOINT}", *words[place:]]


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
    known = {file.stem for file in (conf_dir() / "model").glob("*.yaml")}
    return f"{name}-{CHECKPOINT}" if name in known else name
