"""The rate of a resumed run: from the steps since it was resumed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from results_helpers import begun, job, look
from spec_helpers import changed

from hydraprune.results.plan_file import Planned

# Of a run of 10,000 steps that was resumed from step 9,000.
LINES = '{"step": 9000, "train/loss": 0.5}\n{"step": 9100, "train/loss": 0.5}\n'


@pytest.fixture
def long(tmp_path: Path) -> Planned:
    return job(0, tmp_path / "run", steps=10_000)


def ages(run: Planned, report: float, metrics: float) -> None:
    """Set how many seconds ago the two files were written."""
    for name, ago in (("report.json", report), ("metrics.jsonl", metrics)):
        then = time.time() - ago
        os.utime(run.directory / name, (then, then))


def test_steps_before_the_interruption_do_not_count(long: Planned) -> None:
    begun(long, "started", lines=LINES, from_step=9000)
    ages(long, 100, 0)
    new = changed(long, hash="new", directory=long.directory.with_name("new"))
    found = look(long, new)
    (run,) = found.running
    assert (run.step, run.taken, run.share) == (9100, 100, 0.91)
    assert run.rate == pytest.approx(1.0, abs=0.1)
    # One second per step: 900 steps of this run, 10,000 of the other.
    assert run.left == pytest.approx(900, rel=0.1)
    assert found.left.seconds == pytest.approx(10_900, rel=0.1)


def test_a_report_of_an_older_version_without_from_step(long: Planned) -> None:
    begun(long, "started", lines=LINES)
    place = long.directory / "report.json"
    values = json.loads(place.read_text())
    del values["from_step"]
    place.write_text(json.dumps(values))
    ages(long, 910, 0)
    (run,) = look(long).running
    assert run.rate == pytest.approx(0.1, abs=0.01)
    assert run.left == pytest.approx(90, rel=0.1)


@pytest.mark.parametrize("from_step", [None, 9000])
def test_metrics_from_before_the_interruption_do_not_count(from_step: int | None, long: Planned) -> None:
    """While it loads, or its dense model is trained again."""
    begun(long, "started", lines=LINES, from_step=from_step)
    ages(long, 50, 500)
    (run,) = look(long).running
    assert (run.step, run.rate, run.left) == (9100, None, None)


def test_no_rate_before_the_first_new_metrics(long: Planned) -> None:
    begun(long, "started", lines=LINES, from_step=9100)
    ages(long, 50, 40)
    assert look(long).running[0].rate is None


@pytest.mark.parametrize(
    ("from_step", "ran", "ago", "quiet"),
    [
        # 9 s per step, a line every 100 steps: a line is expected every 15 minutes, and 75 minutes are unusual.
        (9000, 900, 600, False),
        (9000, 900, 4400, False),
        (9000, 900, 4600, True),
        # Without new metrics there is no usual interval.
        (9100, 900, 70, True),
    ],
)
def test_the_usual_interval_is_measured_since_resuming(
    from_step: int, ran: float, ago: float, quiet: bool, long: Planned
) -> None:
    begun(long, "started", lines=LINES, from_step=from_step)
    ages(long, ago + ran, ago)
    (run,) = look(long, since=0.0).running
    assert run.quiet == (pytest.approx(ago, abs=8) if quiet else None)
