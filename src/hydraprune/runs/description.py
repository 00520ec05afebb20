"""Reports of a run, and what its tracker gets."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hydraprune.errors import one_line
from hydraprune.results.mask_crops import mask_crops
from hydraprune.results.report import RunReport, write_report
from hydraprune.results.run_spec import invalid_spec
from hydraprune.results.sparsity_counts import SparsityCounts
from hydraprune.runs.experiment import Experiment
from hydraprune.runs.inputs import input_digests
from hydraprune.runs.provenance import Provenance
from hydraprune.tracking import About, Mask, Outcome
from hydraprune.training.progress import Progress
from hydraprune.training.setup import TrainingSetup
from hydraprune.utils.redaction import redacted

_PACKAGES = ("hydraprune", "torch", "transformers", "datasets", "evaluate", "accelerate", "hydra-core")


def started_report(experiment: Experiment) -> RunReport:
    """The report of a run that has started."""
    return RunReport(experiment.spec, "started", versions=versions(), inputs=input_digests(experiment))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def finished_report(
    experiment: Experiment,
    training: TrainingSetup,
    progress: Progress,
    counted: SparsityCounts,
    dense: dict[str, Any] | None,
    seconds: dict[str, float],
    made_from: Provenance,
) -> RunReport:
    """The report of a finished run.

    Args:
        counted: on the saved model.
        dense: metric -> value of the dense model that it started from.
        seconds: by kind: total, train, eval, teacher, other.
        made_from: its data, checkpoint and layers.
    """
    device = training.accelerator.device
    return replace(
        started_report(experiment),
        status="finished",
        metric=training.headline,
        final=dict(progress.final),
        best=dict(progress.best),
        dense=dense,
        units=counted.units,
        parts=counted.parts,
        sparsity=counted.sparsity,
        pattern_ok=counted.pattern_ok,
        steps=progress.step,
        sparse_steps={
            "count": training.sparse_steps.sparse.steps,
            "revived": training.sparse_steps.revived,
            "switch_density": training.sparse_steps.switch_density if training.sparse_steps.layers else 0.0,
        },
        sparse_gain=training.sparse_steps.gain,
        examples=training.settings.epochs * training.train.data.groups,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        teacher=training.teacher.source,
        threads=torch.get_num_threads(),
        processes=training.processes.count,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})",
        **made_from.as_dict(),
    )


def about(experiment: Experiment, steps: int, done: int) -> About:
    """What a tracker gets when a run starts.

    Args:
        steps: of the whole training.
        done: steps before it was resumed.
    """
    config = redacted(dict(experiment.config))
    return About(experiment.spec, config, experiment.directory, steps, done, experiment.requested)


def outcome(report: RunReport, model: Path) -> Outcome:
    """What a tracker gets when a run finishes."""

    def masks() -> dict[str, Mask]:
        return {crop.pruner: Mask(crop.weight, crop.kept) for crop in mask_crops(model, report.parts)}

    return Outcome(report.as_dict(), model, masks)


def record_refusal(
    experiment: Experiment | None, directory: Path, overrides: Sequence[str], error: BaseException
) -> None:
    """Write a failed report for a job of a multirun that was refused before it began.

    Args:
        experiment: None where the config itself is wrong.
        directory: for the refusal; never the job's own folder, which may hold something else.
    """
    spec = invalid_spec(tuple(overrides)) if experiment is None else experiment.spec
    directory.mkdir(parents=True, exist_ok=True)
    write_report(RunReport(spec, "failed", versions=versions(), error=one_line(error)), directory)
