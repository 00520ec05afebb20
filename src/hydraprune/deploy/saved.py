"""Saved models: written whole, with a card that says what they are."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from hydraprune.hub.vocabulary import expand
from hydraprune.results.report import RunReport


def save_model(model: nn.Module, tokenizer: Any, directory: Path) -> Path:
    """Write `directory`/model in Hugging Face's form: whole, or not at all, and on the disk before this returns.

    Raises:
        OSError: it cannot be written.
    """
    expand(model)
    target = directory / "model"
    temporary = directory / f".model.{os.getpid()}.tmp"
    for left in directory.glob(".model.*.tmp"):  # of a run that was cut while it saved
        shutil.rmtree(left, ignore_errors=True)
    try:
        model.save_pretrained(temporary)  # type: ignore[operator]
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(temporary)) from error
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        # What the last call asked for is no part of the model.
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(temporary)
    for file in (file for file in temporary.rglob("*") if file.is_file()):
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())
    if target.is_symlink():
        target.unlink()  # what is behind it is not ours
    elif target.exists():
        shutil.rmtree(target)
    os.replace(temporary, target)
    return target


def model_card(report: RunReport) -> str:
    """A README.md for the model folder, front matter included."""
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in report.final.items() if value is not None)
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        f"tags: [hydraprune, {'sparse' if report.phase == 'sparse' else 'dense'}]",
        "---",
        f"# {report.model} on {report.task}, {report.pattern}",
        "",
        f"- {metrics} on the validation set (seed {report.seed}, final evaluation)",
    ]
    if report.dense is not None and report.sparsity is not None and report.units is not None:
        dense = ", ".join(f"{n} {v:.4f}" for n, v in report.dense.items() if isinstance(v, float))
        lines += [
            f"- the dense model it was pruned from: {dense or 'unknown'}",
            f"- pattern {report.pattern}: {report.units['pruned']} of {report.units['total']} units pruned; "
            f"{report.sparsity['prunable']:.4f} of the prunable weights, {report.sparsity['linear']:.4f} of all linear "
            f"weights and {report.sparsity['model']:.4f} of all parameters are zero",
            f"- criterion {report.criterion}, schedule {report.scheduler}",
            "",
            "The weights are stored dense, with zeros: they need nothing but transformers to load, and a kernel that "
            "knows the pattern to run faster.",
        ]
    lines += ["", f"Made by hydraprune {report.versions.get('hydraprune', '')}, run {report.hash}."]
    return "\n".join(lines) + "\n"
