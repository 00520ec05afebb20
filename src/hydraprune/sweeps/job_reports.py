"""The reports of planned jobs, each read again only when its file has changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hydraprune.errors import UserError
from hydraprune.results.plan_file import Planned
from hydraprune.results.report import NAME, RunReport, load_report, read_report
from hydraprune.utils.weights_files import missing_weights

# (modification time, size, inode) of a file.
_Version = tuple[int, int, int]


@dataclass(frozen=True)
class JobReport:
    """What the files of a job say.

    Args:
        report: its own, or that of its refusal; None if there is none.
        finished: whether the report says so, and the model is whole.
        damage: why its own report cannot be read; None if it can, or if there is none.
        written: when the report was last written (seconds since the epoch); 0 if there is none.
    """

    report: RunReport | None
    finished: bool
    damage: str | None
    written: float


class JobReports:
    """Reads the reports of jobs, and keeps them until their files change."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, str], tuple[tuple[_Version | None, _Version | None], JobReport]] = {}

    def of(self, job: Planned) -> JobReport:
        """What the files of a job say now."""
        # Before they are read: a file that is written in between is read again the next time.
        versions = (_version(job.directory / NAME), None if job.refusal is None else _version(job.refusal / NAME))
        key = (job.directory, job.spec.hash)
        kept = self._kept.get(key)
        if kept is None or kept[0] != versions:
            written = next((version[0] / 1e9 for version in versions if version is not None), 0.0)
            kept = self._kept[key] = versions, _read(job, written)
        return kept[1]


def _read(job: Planned, written: float) -> JobReport:
    own, damage = None, None
    try:
        own = load_report(job.directory)
    except UserError as error:
        damage = error.reason
    if own is None or own.spec.hash != job.spec.hash:
        return JobReport(None if job.refusal is None else read_report(job.refusal), False, damage, written)
    finished = own.finished and missing_weights(job.directory / "model") is None
    return JobReport(own, finished, damage, written)


def _version(path: Path) -> _Version | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
