"""`hydraprune export`: its options, and what it prints. Light to import."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hydraprune.errors import UserError

if TYPE_CHECKING:
    from hydraprune.deploy.text_batches import TaskTexts

# Form -> precisions; the first is the default.
PRECISIONS = {
    "onnx": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "compact": ("fp32", "fp16", "bf16"),
}
EMBEDDINGS = ("fp32", "fp16", "bf16")
HELP = "export a saved model to ONNX, OpenVINO or a compact file; its outputs are compared with those of torch"


@dataclass(frozen=True)
class ExportOptions:
    """What to export a model to.

    Args:
        to: a key of `PRECISIONS`.
        precision: one of its values.
        embeddings: precision of embedding tables in a compact file; None: fp32.
        out: the new folder; None: beside the model.
        has_task: whether texts of a task will be given.

    Raises:
        UserError: the options do not fit together.
    """

    to: str
    precision: str = "fp32"
    embeddings: str | None = None
    out: str | None = None
    has_task: bool = False

    def __post_init__(self) -> None:
        known = PRECISIONS.get(self.to)
        if known is None:
            raise UserError("is no form of a model", key=f"--to {self.to}", cure=f"give one of {', '.join(PRECISIONS)}")
        if self.precision not in known:
            reason, cure = f"--to {self.to} has {', '.join(known)}", "give one of these"
            raise UserError(reason, key=f"--precision {self.precision}", cure=cure)
        if self.embeddings is not None and (self.to != "compact" or self.embeddings not in EMBEDDINGS):
            reason = f"is for --to compact, with {', '.join(EMBEDDINGS)}"
            raise UserError(reason, key=f"--embeddings {self.embeddings}", cure="leave it out")
        if (self.to, self.precision) == ("openvino", "int8") and not self.has_task:
            reason = "int8 is calibrated on the texts of a task, and none is given"
            raise UserError(reason, key="--precision int8", cure="for example task=sst2")

    @property
    def form(self) -> str:
        """Such as `onnx-int8`."""
        parts = [self.to, "" if self.precision == "fp32" else self.precision]
        return "-".join(part for part in parts if part)


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
    return ExportOptions(
        arguments.to, arguments.precision, arguments.embeddings, arguments.out, bool(arguments.overrides)
    )


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
