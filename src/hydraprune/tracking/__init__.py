"""Where a run's metrics go: JSON lines always, and whoever else listens."""

from hydraprune.tracking.background import Guarded
from hydraprune.tracking.base import About, Mask, Outcome, RunTracker
from hydraprune.tracking.trackers import JsonLines, ProgressBar, Several, Silent
from hydraprune.tracking.wandb_tracker import WandB

__all__ = [
    "About",
    "Guarded",
    "JsonLines",
    "Mask",
    "Outcome",
    "ProgressBar",
    "RunTracker",
    "Several",
    "Silent",
    "WandB",
]
