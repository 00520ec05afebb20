"""What ended a run, as one line of the user's own words where it is not a defect of ours."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from hydraprune.config import instantiate as assembly
from hydraprune.errors import UserError
from hydraprune.runs.description import one_line
from hydraprune.runs.experiment import Request
from hydraprune.sparsity import SparsityError


def in_words(error: Exception, request: Request) -> Exception:
    """A `UserError` where a disk, memory or a choice of method ended the run; anything else as it is."""
    if isinstance(error, SparsityError):
        return _of_the_config(error, request.config)
    if isinstance(error, OSError):
        return UserError(_of_the_disk(error, request.directory))
    if _is_memory(error):
        return UserError(
            f"training.batch_size={request.config.training.batch_size}: memory does not suffice; lower it and raise "
            f"training.accumulation as much, or lower task.max_length ({one_line(error)[:200]})"
        )
    return error


def _of_the_config(error: SparsityError, config: DictConfig) -> UserError:
    return UserError.of(error) if error.pruner is None else assembly.in_config_words(error, assembly.plans(config))


def _of_the_disk(error: OSError, directory: Path) -> str:
    where = f" of {error.filename}" if error.filename is not None else ""
    return (
        f"{directory}: the run ended, since the system refused the use{where} ({error.strerror or error}); mend that, "
        f"and the same command goes on from the last checkpoint"
    )


def _is_memory(error: Exception) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
