"""Errors of disk, memory and methods that end a run, as a user's mistake with its cure."""

from __future__ import annotations

from pathlib import Path

import torch

from hydraprune.config import instantiate
from hydraprune.errors import UserError, one_line
from hydraprune.runs.experiment import Experiment
from hydraprune.sparsity import SparsityError


def as_user_error(error: Exception, experiment: Experiment) -> UserError | None:
    """The error as a `UserError` where disk, memory or the choice of a method ended the run; otherwise None."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, SparsityError):
        if error.pruner is None:
            return UserError.of(error)
        return instantiate.in_config_words(error, experiment.components.plans)
    if isinstance(error, OSError):
        return _of_disk(error, experiment.directory)
    if _is_memory(error):
        return UserError(
            "memory does not suffice",
            key="training.batch_size",
            value=experiment.components.settings.batch_size,
            cure="lower it and raise training.accumulation as much, or lower task.max_length "
            f"({one_line(error)[:200]})",
        )
    return None


def _of_disk(error: OSError, directory: Path) -> UserError:
    where = "" if error.filename is None else f" of {error.filename}"
    return UserError(
        f"the run ended, since the system refused the use{where} ({error.strerror or error})",
        key=str(directory),
        cure="mend that, and the same command resumes from the last checkpoint",
    )


def _is_memory(error: Exception) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
