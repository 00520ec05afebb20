"""Exports of a saved model: to ONNX, OpenVINO or a compact file, each checked against torch before it is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import nn

from hydraprune import __version__
from hydraprune.deploy.compact_model import CompactModel, CompactSizes, save_compact, source_of
from hydraprune.deploy.compact_weight import Precision
from hydraprune.deploy.comparison import Comparison, Run, compare, refuse_above_limit
from hydraprune.deploy.engines import require, versions
from hydraprune.deploy.export_folder import DETAILS_FILE, copy_settings, new_folder, size_of, target_of
from hydraprune.deploy.export_options import ExportOptions
from hydraprune.deploy.onnx_export import ONNX_FILE, OPSET, load_onnx, quantize_onnx, write_onnx
from hydraprune.deploy.openvino_export import (
    computes_in_bf16,
    load_openvino,
    quantize_openvino,
    to_openvino,
    write_openvino,
)
from hydraprune.deploy.text_batches import CALIBRATED, Inputs, TaskTexts, input_batches, sample_texts, spread
from hydraprune.errors import UserError
from hydraprune.models.head_classes import model_outputs

# Texts of a task that are compared.
_CHECKED = 64
_BATCH_SIZE = 4


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Args:
        size: bytes of the whole folder.
        summary: what was measured, in words by subject.
    """

    folder: Path
    size: int
    summary: dict[str, str]


@dataclass(frozen=True)
class _Job:
    """A model to export, and texts to check it with."""

    options: ExportOptions
    model: nn.Module
    checks: list[Inputs]
    calibration: Callable[[], list[Inputs]]

    @property
    def names(self) -> list[str]:
        """The inputs of the model."""
        return list(self.checks[0])


@dataclass(frozen=True)
class _Written:
    """What a writer did, and how to compute with it.

    Args:
        details: for export.json.
        summary: as in `Exported`.
        is_exact: whether its outputs are torch's but for rounding in float32.
    """

    run: Run
    is_exact: bool
    details: dict[str, Any]
    summary: dict[str, str] = field(default_factory=dict)


def export_model(model: str, options: ExportOptions, texts: TaskTexts | None = None) -> Exported:
    """Export a saved classifier into a new folder, with its config and tokenizer, after its outputs were compared.

    Args:
        model: a folder, that of a run too, or a hub id.
        texts: of a task, for the comparison and for calibration; None: a sample of English.

    Raises:
        UserError: the model cannot be loaded or converted; the folder exists or cannot be written; a package is
            missing; or an export in float32 computes other outputs.
    """
    options.check_texts(given=texts is not None)
    if options.to != "compact":
        require(options.to)
    source = source_of(model, "MODEL")
    target = target_of(source.path, options.form, options.out)
    loaded, tokenizer = source.load().eval(), source.tokenizer()

    of = texts or TaskTexts(sample_texts(), sample_texts())

    def batches(chosen: Any, size: int) -> list[Inputs]:
        return input_batches(chosen, tokenizer, loaded, size, of.max_length, of.labels)

    checked, calibrated = spread(of.check, _CHECKED), spread(of.calibration, CALIBRATED)
    job = _Job(options, loaded, batches(checked, _BATCH_SIZE), lambda: batches(calibrated, 1))
    with new_folder(target) as folder:
        copy_settings(source, tokenizer, folder)
        written = _WRITERS[options.to](job, folder)
        found = compare(loaded, written.run, job.checks)
        if written.is_exact:
            refuse_above_limit(found, options.to)
        details = _details(options, written, found, job)
        (folder / DETAILS_FILE).write_text(json.dumps(details, indent=2) + "\n", encoding="utf-8")
    return Exported(target, size_of(target), {**written.summary, "check": str(found)})


def _details(options: ExportOptions, written: _Written, found: Comparison, job: _Job) -> dict[str, Any]:
    packages = {} if options.to == "compact" else versions(options.to)
    return {
        "format": options.to,
        "precision": options.precision,
        "inputs": job.names,
        **written.details,
        "versions": {"hydraprune": __version__, **packages},
        "check": asdict(found),
    }


def _compact(job: _Job, folder: Path) -> _Written:
    precision = cast(Precision, job.options.precision)
    embeddings = cast(Precision, job.options.embeddings or "fp32")
    try:
        sizes = save_compact(job.model, folder, precision, embeddings)
    except ValueError as error:
        raise UserError(str(error), key="MODEL", cure="give a precision of a wider range: fp32 or bf16") from None
    loaded = CompactModel(folder.name, str(folder), key="MODEL").load().eval()

    def run(arrays: dict[str, Any]) -> Any:
        import torch

        with torch.inference_mode():
            return model_outputs(loaded, {name: torch.from_numpy(array) for name, array in arrays.items()}).numpy()

    details = {"embeddings": embeddings, "sizes": asdict(sizes)}
    return _Written(run, (precision, embeddings) == ("fp32", "fp32"), details, _size_lines(sizes))


def _size_lines(sizes: CompactSizes) -> dict[str, str]:
    def ratio(stored: int, dense: int) -> str:
        times = dense / max(1, stored)
        return f"{stored / 1e6:.2f} MB, {times:.1f} times smaller than in float32 ({dense / 1e6:.2f} MB)"

    lines = {
        "encoder": ratio(sizes.encoder, sizes.dense_encoder),
        "model": ratio(sizes.model, sizes.dense_model),
    }
    lines["matrices"] = f"{sizes.sparse} without their zeros; `encoder` counts those of its layers"
    if not sizes.sparse:
        lines["note"] = "no matrix has zeros enough: a dense model is better served by --to openvino --precision int8"
    return lines


def _onnx(job: _Job, folder: Path) -> _Written:
    file = folder / ONNX_FILE
    write_onnx(job.model, job.names, file)
    if job.options.precision == "int8":
        single = file.rename(folder / f"single-{ONNX_FILE}")
        quantize_onnx(single, file)
        single.unlink()
    session = load_onnx(folder)
    details = {"opset": OPSET}
    summary = {"onnx": f"opset {OPSET}, {job.options.precision}, any batch size and length"}
    return _Written(lambda arrays: session.run(None, arrays)[0], job.options.precision == "fp32", details, summary)


def _openvino(job: _Job, folder: Path) -> _Written:
    converted, precision = to_openvino(job.model, job.names), job.options.precision
    details: dict[str, Any] = {}
    if precision == "int8":
        calibration = job.calibration()
        converted = quantize_openvino(converted, calibration)
        details["calibration_texts"] = len(calibration)
    write_openvino(converted, precision, folder)
    compiled = load_openvino(folder)
    summary = {"openvino": _OPENVINO_LINES[precision].format(texts=details.get("calibration_texts"))}
    if precision != "fp32" and not computes_in_bf16():
        summary["note"] = "this processor has no bfloat16: what bf16 costs in accuracy is not in the check"
    return _Written(lambda arrays: compiled(arrays)[0], precision == "fp32", details, summary)


_OPENVINO_LINES = {
    "fp32": "float32 weights; INFERENCE_PRECISION_HINT=f32 is in openvino_options.json: without it, OpenVINO computes "
    "in bfloat16 where the processor has it",
    "bf16": "float32 weights; computes in bfloat16 by INFERENCE_PRECISION_HINT=bf16 of openvino_options.json",
    "int8": "int8 by NNCF, calibrated on {texts} texts of the task's training set",
}
_WRITERS: dict[str, Callable[[_Job, Path], _Written]] = {"compact": _compact, "onnx": _onnx, "openvino": _openvino}
