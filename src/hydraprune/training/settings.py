"""How long, how large, on what: the numbers of a training."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hydraprune.sparsity import Duration, in_steps

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
DEVICES = ("auto", "cpu", "cuda", "mps")
_MAY_BE_ZERO = ("epochs", "skip_nonfinite")
_COUNTS = (
    *("batch_size", "eval_batch_size", "accumulation", "log_every", "length_grouping", "keep_checkpoints"),
    *_MAY_BE_ZERO,
)
# Steps of an epoch in which every share of one above 0 comes to a whole step.
_LONG = 10**9


@dataclass(frozen=True)
class Settings:
    """Checked when it is made.

    Args:
        epochs: passes over the training set; 0: nothing is trained.
        batch_size: examples per forward pass.
        accumulation: forward passes per optimizer step.
        precision: fp32, or autocast to bf16, or to fp16 with a scaled loss (on CUDA).
        device: auto takes the accelerator if there is one.
        max_grad_norm: clip gradients to this norm; None: do not.
        log_every: optimizer steps between two lines of metrics.
        length_grouping: batches at a time among which examples are grouped by length; 1: none.
        fast_dropout: on a CPU, drop out with 16-bit random numbers.
        compact_vocabulary: train only the embeddings of tokens that occur.
        checkpoint_every: steps, or epochs as `1ep`, after which a checkpoint is kept; None: only when asked to stop.
        keep_checkpoints: how many of the last are kept.
        skip_nonfinite: how many steps whose loss or gradients are not finite are passed over; one more ends the run.

    Raises:
        ValueError: a number is out of range, or a word is not known.
    """

    epochs: int
    batch_size: int
    eval_batch_size: int = 32
    accumulation: int = 1
    precision: str = "fp32"
    device: str = "auto"
    max_grad_norm: float | None = None
    log_every: int = 10
    length_grouping: int = 50
    fast_dropout: bool = True
    compact_vocabulary: bool = True
    checkpoint_every: Duration | None = "1ep"
    keep_checkpoints: int = 2
    skip_nonfinite: int = 0

    def __post_init__(self) -> None:
        for key in _COUNTS:
            value, least = getattr(self, key), 0 if key in _MAY_BE_ZERO else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{key}={value}: must be a whole number of at least {least}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision}: must be one of {', '.join(PRECISIONS)}")
        if self.device not in DEVICES:
            raise ValueError(f"device={self.device}: must be one of {', '.join(DEVICES)}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm={self.max_grad_norm}: must be above 0, or null for no clipping")
        if self.checkpoint_every is not None and in_steps(self.checkpoint_every, _LONG, "checkpoint_every") < 1:
            raise ValueError(f"checkpoint_every={self.checkpoint_every}: must be above 0, or null for no checkpoints")

    def check_device(self) -> None:
        """Refuse a device, or a precision, that this machine does not have.

        Raises:
            ValueError: naming the key, its value and the cure.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device=cuda: torch finds no CUDA device here; use device=auto or cpu")
        if self.device == "mps" and not torch.backends.mps.is_available():
            raise ValueError("device=mps: torch finds no Apple GPU here; use device=auto or cpu")
        if self.precision == "fp16" and (self.device in ("cpu", "mps") or not torch.cuda.is_available()):
            raise ValueError("precision=fp16: needs a CUDA device, and there is none here; use precision=bf16 or fp32")

    def steps_per_epoch(self, examples: int) -> int:
        """Optimizer steps of one epoch; the last one may see fewer examples."""
        return -(-examples // (self.batch_size * self.accumulation))

    def checkpoint_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps between two checkpoints; as many as the training has where none is kept on its way."""
        if self.checkpoint_every is None:
            return self.epochs * steps_per_epoch
        return max(1, in_steps(self.checkpoint_every, steps_per_epoch, "checkpoint_every"))
