"""`hydraprune export`: its options, and what it prints. Light to import."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hydraprune.deploy.export_options import PRECISIONS, ExportOptions

if TYPE_CHECKING:
    from hydraprune.deploy.text_batches import TaskTexts

HELP = "export a saved model to ONNX, OpenVINO or a compact file; its outputs are compared with those of torch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("model", metavar="MODEL", help="a folder, that of a run too, or a hub id")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="task=..., task.path=...: texts for checks")
    parser.add_argument("--to", required=True, choices=sorted(PRECISIONS), help="the form of the export")
    parser.add_argument("--out", metavar="FOLDER", help="a new folder (default: beside the model's, as in model-onnx)")
    parser.add_argument(
        "--precision", default="fp32", help="onnx: fp32, int8; openvino: fp32, bf16, int8; compact: fp32, fp16, bf16"
    )
    parser.add_argument("--embeddings", help="compact: fp32, fp16 or bf16 for embedding tables (default: fp32)")


def options_of(arguments: argparse.Namespace) -> ExportOptions:
    """The options of a command line.

    Raises:
        UserError: they do not fit together.
    """
    options = ExportOptions(arguments.to, arguments.precision, arguments.embeddings, arguments.out)
    options.check_texts(given=bool(arguments.overrides))
    return options


def export(model: str, options: ExportOptions, texts: TaskTexts | None) -> int:
    """Export a model and print what was written and how far its outputs are from torch's.

    Args:
        model: folder or hub id.
        texts: of a task; None: a sample of English.

    Returns:
        The exit code.

    Raises:
        UserError: it cannot be exported.
    """
    from hydraprune.deploy.exports import export_model

    exported = export_model(model, options, texts)
    print(f"{exported.folder}  {exported.size / 1e6:.1f} MB")
    width = max(map(len, exported.summary))
    for name, line in exported.summary.items():
        print(f"  {name:<{width}}  {line}")
    return 0
