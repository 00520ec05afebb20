"""Where a run's metrics go: JSON lines always, and whoever else listens."""

from hydraprune.tracking.contract import About, Mask, Outcome, RunTracker
from hydraprune.tracking.guarded import Guarded
from hydraprune.tracking.trackers import JsonLines, ProgressBar, Several, Silent
from hydraprune.tracking.weights_and_biases import WandB

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
