"""Provenance: the data that a run read, the weights that it took from a checkpoint, and the layers that it prunes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from hydraprune.config.instantiate import Components
from hydraprune.data.batches import Encoded
from hydraprune.data.examples import TaskData
from hydraprune.data.summary import DataSummary, SplitSummary
from hydraprune.models.checkpoint_use import CheckpointUse, checkpoint_use
from hydraprune.models.families import family_of_model, model_type
from hydraprune.sparsity import Coverage, Pruner, coverage

log = logging.getLogger(__name__)

# Shares of the examples of a split from which a figure is odd.
_MANY_TRUNCATED = 0.1
# Weights that are named in a report; the others are counted.
_MOST_NAMES = 20


@dataclass(frozen=True)
class Provenance:
    """What a run was made from.

    Args:
        data: what was read.
        checkpoint: what the model took from its checkpoint; None for random weights.
        coverage: what the pruners take of the model; None for a dense run.
        max_length: most tokens of an example.
        kinds: (the `model_type` that the config declares, that of the checkpoint); None where nothing is declared.
    """

    data: DataSummary
    checkpoint: CheckpointUse | None
    coverage: Coverage | None
    max_length: int
    kinds: tuple[str | None, str] = (None, "")

    def lines(self) -> list[tuple[str, str]]:
        """(subject, one line) for the terminal."""
        lines = [("data", _data_line(self.data))]
        lines.append(("weights", "random" if self.checkpoint is None else _checkpoint_line(self.checkpoint)))
        if self.coverage is not None:
            lines.append(("pruned", _coverage_line(self.coverage)))
        return lines

    def oddities(self) -> list[str]:
        """What a user should look at, one line each."""
        found = [f"{name}: {why}" for name, split in self.data.splits.items() for why in _odd(split, self.max_length)]
        found += _unseen_classes(self.data.splits)
        declared, kind = self.kinds
        if declared is not None and declared != kind:
            found.append(
                f"weights: this is a {kind} model, and model.type={declared}; leave model= out to name it by its path"
            )
        if self.checkpoint is not None and (lost := self.checkpoint.lost):
            found.append(
                f"checkpoint: {len(lost)} weights of its encoder are not used, {lost[0]} among them, since its "
                f"config.json has no place for them"
            )
        if self.coverage is not None and self.coverage.odd:
            share = self.coverage.by_reason["unsupported"] / self.coverage.parameters
            first = self.coverage.unsupported[0]
            found.append(
                f"pruned: {share:.0%} of the parameters are in weights that no pruner takes, {first.name} of "
                f"{first.module} the largest; they stay dense"
            )
        return found

    def log(self) -> None:
        """Log the lines, and each oddity as a warning."""
        for subject, line in self.lines():
            log.info("%-8s %s", subject, line)
        for line in self.oddities():
            log.warning("%s", line)

    def as_dict(self) -> dict[str, Any]:
        """The fields of report.json."""
        return {
            "data": self.data.as_dict(),
            "checkpoint": None if self.checkpoint is None else _checkpoint_fields(self.checkpoint),
            "coverage": None if self.coverage is None else _coverage_fields(self.coverage),
        }


def provenance(
    data: TaskData,
    encoded: Mapping[str, Encoded],
    model: nn.Module,
    pruners: Sequence[Pruner],
    components: Components,
) -> Provenance:
    """The provenance of a run whose model was just loaded.

    Args:
        encoded: `train` and the names of the evaluation sets -> their tokens.
        pruners: none for a dense run.
    """
    summary = data.summary.with_truncated({name: tokens.truncated for name, tokens in encoded.items()})
    covered = coverage(model, pruners, family_of_model(model)) if pruners else None
    declared = getattr(components.model, "type", None)  # of a checkpoint only
    kinds = (declared, model_type(model))
    return Provenance(summary, checkpoint_use(model), covered, components.task.max_length, kinds)


def _data_line(data: DataSummary) -> str:
    parts = [f"{split.used:,} {name}" for name, split in data.splits.items()]
    train = next(iter(data.splits.values()), None)
    if train is not None and train.classes:
        total = max(1, sum(train.classes.values()))
        shares = [f"{name} {count / total:.0%}" for name, count in train.classes.items()]
        more = f" and {len(shares) - 4} more" if len(shares) > 4 else ""
        parts.append(f"{len(shares)} classes ({', '.join(shares[:4])}{more})")
    if train is not None and train.scores is not None:
        parts.append(f"scores from {train.scores[0]:g} to {train.scores[1]:g}")
    for name, split in data.splits.items():
        parts += [f"{count:,} rows of {name} not used ({why})" for why, count in split.left_out.items()]
    if truncated := sum(split.truncated or 0 for split in data.splits.values()):
        parts.append(f"{truncated:,} truncated")
    return ", ".join(parts)


def _odd(split: SplitSummary, max_length: int) -> Iterator[str]:
    truncated = split.truncated or 0
    if truncated > _MANY_TRUNCATED * split.used:
        yield f"{truncated:,} of {split.used:,} examples are cut to task.max_length={max_length} tokens"
    if split.multiline:
        yield f"{split.multiline:,} rows span several lines of the file; a stray quote does that too"
    if split.empty:
        yield f"{split.empty:,} examples have an empty text"


def _unseen_classes(splits: Mapping[str, SplitSummary]) -> list[str]:
    """Classes without a training example."""
    (name, train), *_ = splits.items()
    unseen = [label for label, count in train.classes.items() if count == 0]
    return [f"{name}: no example of {', '.join(unseen[:5])}"] if unseen else []


def _checkpoint_line(use: CheckpointUse) -> str:
    line = f"{use.used} from the checkpoint"
    if use.new:
        line += f", {len(use.new)} new ({', '.join(use.new[:2])}{', ...' if len(use.new) > 2 else ''})"
    return line + (f"; {len(use.unused)} of the checkpoint's not used" if use.unused else "")


def _checkpoint_fields(use: CheckpointUse) -> dict[str, Any]:
    return {
        "used": use.used,
        "new": list(use.new[:_MOST_NAMES]),
        "unused": {"count": len(use.unused), "of_encoder": len(use.lost), "names": list(use.unused[:_MOST_NAMES])},
    }


def _coverage_line(found: Coverage) -> str:
    return f"{len(found.pruned)} weights, {found.covered:,} of {found.parameters:,} parameters ({found.share:.0%})"


def _coverage_fields(found: Coverage) -> dict[str, Any]:
    return {
        "weights": len(found.pruned),
        "parameters": found.covered,
        "share": found.share,
        "dense": {**found.by_reason, "small": found.small},
        "unsupported": [
            {"name": weight.name, "shape": list(weight.shape), "module": weight.module}
            for weight in found.unsupported[:_MOST_NAMES]
        ],
    }
