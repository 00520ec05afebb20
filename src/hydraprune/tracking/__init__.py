"""Where a run's metrics go: JSON lines always, and whoever else listens."""

from hydraprune.tracking.trackers import JsonLines, ProgressBar, Several, Silent

__all__ = ["JsonLines", "ProgressBar", "Several", "Silent"]
