"""Errors of disk, memory and pruning methods that end a run, as user errors with a cure."""

from __future__ import annotations

from pathlib import Path

import torch

from hydraprune.config.instantiate import with_config_keys
from hydraprune.errors import UserError, one_line
from hydraprune.runs.experiment import Experiment
from hydraprune.sparsity import SparsityError


def as_user_error(error: Exception, experiment: Experiment) -> UserError | None:
    """An error of disk, memory or a pruning method as a `UserError`; None for any other."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, SparsityError):
        if error.pruner is None:
            return UserError.of(error)
        return with_config_keys(error, experiment.components.plans)
    if isinstance(error, OSError):
        return _disk_error(error, experiment.directory)
    if _is_out_of_memory(error):
        return UserError(
            "memory does not suffice",
            key="training.batch_size",
            value=experiment.components.settings.batch_size,
            cure="lower it and raise training.accumulation as much, or lower task.max_length "
            f"({one_line(error)[:200]})",
        )
    return None


def _disk_error(error: OSError, directory: Path) -> UserError:
    where = "" if error.filename is None else f" of {error.filename}"
    return UserError(
        f"the run ended, since the system refused the use{where} ({error.strerror or error})",
        key=str(directory),
        cure="fix that, and the same command resumes from the last checkpoint",
    )


def _is_out_of_memory(error: Exception) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
