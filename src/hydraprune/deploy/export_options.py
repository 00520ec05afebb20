"""What to export a model to: the options, and which of them fit together. Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from hydraprune.errors import UserError

# Form -> precisions; the first is the default.
PRECISIONS = {
    "onnx": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "compact": ("fp32", "fp16", "bf16"),
}
EMBEDDINGS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class ExportOptions:
    """What to export a model to.

    Args:
        to: a key of `PRECISIONS`.
        precision: one of its values.
        embeddings: precision of embedding tables in a compact file; None: fp32.
        out: the new folder; None: beside the model.

    Raises:
        UserError: the options do not fit together.
    """

    to: str
    precision: str = "fp32"
    embeddings: str | None = None
    out: str | None = None

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

    def check_texts(self, given: bool) -> None:
        """Check that there are texts of a task where the export is calibrated on them.

        Raises:
            UserError: there are none.
        """
        if (self.to, self.precision) == ("openvino", "int8") and not given:
            reason = "int8 is calibrated on the texts of a task, and none is given"
            raise UserError(reason, key="--precision int8", cure="for example task=sst2")

    @property
    def form(self) -> str:
        """Such as `onnx-int8`."""
        parts = [self.to, "" if self.precision == "fp32" else self.precision]
        return "-".join(part for part in parts if part)
