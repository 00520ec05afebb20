"""Training settings: epochs, batch sizes, precision, device, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hydraprune.sparsity import Duration, SparsityError, check_choice, check_whole, in_steps

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
DEVICES = ("auto", "cpu", "cuda", "mps")
_MAY_BE_ZERO = ("epochs", "skip_nonfinite")
_COUNTS = (
    *("batch_size", "eval_batch_size", "accumulation", "log_every", "length_grouping", "keep_checkpoints"),
    *_MAY_BE_ZERO,
)
# Steps of an epoch so long that any fraction of it above 0 is at least one step.
_LONG_EPOCH = 10**9


@dataclass(frozen=True)
class Settings:
    """The numbers of a training, checked at construction.

    Args:
        epochs: passes over the training set; 0: no training.
        batch_size: examples per forward pass.
        accumulation: forward passes per optimizer step.
        precision: fp32, autocast to bf16, or autocast to fp16 with a scaled loss (on CUDA).
        device: auto takes the accelerator if there is one.
        max_grad_norm: clip gradients to this norm; None: no clipping.
        log_every: optimizer steps between two log lines.
        length_grouping: batches among which examples are grouped by length; 1: no grouping.
        fast_dropout: on a CPU, draw 16-bit random numbers for dropout.
        compact_vocabulary: train only the embeddings of tokens that occur.
        cuda_graphs: on CUDA, capture the forward and backward pass of every batch width once and replay it.
        checkpoint_every: steps, or epochs as `1ep`, between checkpoints; None: only when asked to stop.
        keep_checkpoints: how many of the latest checkpoints are kept.
        skip_nonfinite: steps with a non-finite loss or gradients that are skipped; one more ends the run.

    Raises:
        SparsityError: a number is out of range, or a word is not known.
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
    cuda_graphs: bool = False
    checkpoint_every: Duration | None = "1ep"
    keep_checkpoints: int = 2
    skip_nonfinite: int = 0

    def __post_init__(self) -> None:
        for key in _COUNTS:
            check_whole(key, getattr(self, key), 0 if key in _MAY_BE_ZERO else 1)
        check_choice("precision", self.precision, tuple(PRECISIONS))
        check_choice("device", self.device, DEVICES)
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise self._error("max_grad_norm", "must be above 0, or null for no clipping")
        if self.checkpoint_every is not None and in_steps(self.checkpoint_every, _LONG_EPOCH, "checkpoint_every") < 1:
            raise self._error("checkpoint_every", "must be above 0, or null for no checkpoints")

    def check_device(self) -> None:
        """Refuse a device, or a precision, that this machine does not have.

        Raises:
            SparsityError: naming the key, its value and the cure.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise self._error("device", "torch finds no CUDA device here", "use device=auto or cpu")
        if self.device == "mps" and not torch.backends.mps.is_available():
            raise self._error("device", "torch finds no Apple GPU here", "use device=auto or cpu")
        if self.cuda_graphs and (self.device in ("cpu", "mps") or not torch.cuda.is_available()):
            raise self._error("cuda_graphs", "needs a CUDA device, and there is none here", "use cuda_graphs=false")
        if self.cuda_graphs and self.precision == "fp16":
            raise self._error("cuda_graphs", "a scaled loss (precision=fp16) is not captured", "use precision=bf16")
        if self.precision == "fp16" and (self.device in ("cpu", "mps") or not torch.cuda.is_available()):
            reason = "needs a CUDA device, and there is none here"
            raise self._error("precision", reason, "use precision=bf16 or fp32")

    def _error(self, key: str, reason: str, cure: str | None = None) -> SparsityError:
        return SparsityError(reason, key=key, value=getattr(self, key), cure=cure)

    def steps_per_epoch(self, examples: int) -> int:
        """Optimizer steps of one epoch; the last one may see fewer examples."""
        return -(-examples // (self.batch_size * self.accumulation))

    def checkpoint_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps between two checkpoints, where `checkpoint_every` is not None."""
        assert self.checkpoint_every is not None
        return max(1, in_steps(self.checkpoint_every, steps_per_epoch, "checkpoint_every"))
