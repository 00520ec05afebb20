"""Trackers: metrics.jsonl of every run, the progress bar, Weights & Biases, and trackers of your own."""

from hydraprune.tracking.background import Guarded, guarded
from hydraprune.tracking.base import About, BaseTracker, Mask, Outcome, RunTracker
from hydraprune.tracking.experiment_trackers import MLflow, TensorBoard, Trackio
from hydraprune.tracking.trackers import JsonLines, ProgressBar, Several, Silent
from hydraprune.tracking.wandb_tracker import WandB

__all__ = [
    "About",
    "BaseTracker",
    "Guarded",
    "JsonLines",
    "MLflow",
    "Mask",
    "Outcome",
    "ProgressBar",
    "RunTracker",
    "Several",
    "Silent",
    "TensorBoard",
    "Trackio",
    "WandB",
    "guarded",
]
