"""The reports of jobs, kept until their files change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from watch_helpers import keep, planned

from hydraprune.sweeps import job_reports
from hydraprune.sweeps.job_reports import JobReports


def test_a_report_is_read_again_only_when_its_file_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = planned(tmp_path, 1)
    reads = []
    original = job_reports.load_report
    monkeypatch.setattr(job_reports, "load_report", lambda place: reads.append(place) or original(place))
    reports = JobReports()
    assert reports.of(job).report is None
    assert reports.of(job).report is None
    keep(job, "started")
    found = reports.of(job)
    assert found.report is not None
    assert found.report.status == "started"
    assert found.written == pytest.approx((job.directory / "report.json").stat().st_mtime, abs=1e-3)
    count = len(reads)
    assert reports.of(job) is found
    assert len(reads) == count
    keep(job, "finished")
    assert reports.of(job).finished
    assert len(reads) == count + 1


def test_a_replaced_file_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    (job,) = planned(tmp_path, 1)
    keep(job, "started")
    place = job.directory / "report.json"
    reports = JobReports()
    assert reports.of(job).report is not None
    before = place.stat()
    text = place.read_text().replace('"started"', '"startex"')
    other = place.with_name("other")
    other.write_text(text)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(place)
    found = reports.of(job)
    assert found.report is None
    assert found.damage is not None
