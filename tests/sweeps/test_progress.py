"""The progress of a sweep and estimates of its time, from made-up folders and finished runs."""

from __future__ import annotations

import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from results_helpers import SINCE, begun, job, jobs_in, look, report
from spec_helpers import changed

from hydraprune.results.plan_file import Plan, unique_names, with_earlier
from hydraprune.results.report import RunReport
from hydraprune.sweeps import plan as planning
from hydraprune.sweeps.estimates import Estimates, TimeLeft, duration, time_left
from hydraprune.sweeps.progress import progress
from hydraprune.utils.sizes import format_bytes

# Runs from the most to the least similar to the job (100 steps), each with its own seconds per step.
CELL = report(1, steps=10, seconds={"total": 10.0})
PATTERN = report(1, cell="p" * 12, steps=10, seconds={"total": 20.0})
PRECISION = report(1, cell="q" * 12, pattern="2:4", steps=10, seconds={"total": 30.0})
NAMES = report(1, cell="n" * 12, pattern="2:4", precision="bf16", steps=10, seconds={"total": 40.0})
WANTED = replace(job(0), steps=100)


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [
        ([NAMES, PRECISION, PATTERN, CELL], 100.0),
        ([NAMES, PRECISION, PATTERN], 200.0),
        ([NAMES, PRECISION], 300.0),
        ([NAMES], 400.0),
        ([changed(NAMES, model="bert_mini")], None),
        ([changed(NAMES, task="sst2")], None),
        ([changed(NAMES, phase="dense")], None),
        ([], None),
        # The median of three; runs without times or steps are left out.
        ([CELL, replace(CELL, seconds={"total": 50.0}), replace(CELL, seconds={"total": 20.0})], 200.0),
        ([CELL, replace(CELL, steps=None), replace(CELL, steps=0), replace(CELL, seconds={})], 100.0),
    ],
)
def test_the_most_similar_runs_are_used(runs: list[RunReport], seconds: float | None) -> None:
    assert Estimates(runs).seconds(WANTED) == seconds
    assert Estimates(runs[::-1]).seconds(WANTED) == seconds


def test_a_run_of_unknown_steps_cannot_be_estimated() -> None:
    assert Estimates([CELL]).seconds(replace(WANTED, steps=None)) is None


@pytest.mark.parametrize(
    ("estimates", "workers", "seconds", "text"),
    [
        ([], 1, 0.0, "0 s"),
        ([30.0, 30.0], 1, 60.0, "about 60 s"),
        ([30.0, 30.0], 2, 30.0, "about 30 s"),
        ([30.0, 10.0], 2, 30.0, "about 30 s"),  # no shorter than its longest job
        ([30.0, 30.0], 8, 30.0, "about 30 s"),
        ([30.0, None, None], 1, 30.0, "about 30 s, and 2 more of unknown length"),
        ([None], 2, 0.0, "unknown"),
    ],
)
def test_time_left(estimates: list[float | None], workers: int, seconds: float, text: str) -> None:
    found = time_left(estimates, workers)
    assert found == TimeLeft(seconds, estimates.count(None))
    assert str(found) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40 min"), (11100, "3 h 05 min")],
)
def test_durations_as_text(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 MB"), (493_064, "0 MB"), (2e6, "2 MB"), (1.25e9, "1.2 GB")])
def test_byte_counts_as_text(count: float, text: str) -> None:
    assert format_bytes(count) == text


def test_the_states_of_a_sweeps_jobs(tmp_path: Path) -> None:
    done, early, failed, before, running, cut, new, refused = jobs_in(tmp_path, 8)
    begun(done, "finished", -10)
    begun(early, "finished", 10)
    begun(failed, "failed", -10)
    begun(before, "failed", 10)  # in an earlier sweep, so it runs again
    begun(running, "started", -10)
    begun(cut, "started", 10)
    refused = replace(refused, refused="7x1 does not fit")
    found = look(done, early, failed, before, running, cut, new, refused)
    assert [job for job, _ in found.done] == [done, early]
    assert found.failed == ((failed, "not finite"), (refused, "7x1 does not fit"))
    assert [run.job for run in found.running] == [running]
    assert found.waiting == (before, cut, new)


def test_a_finished_run_without_its_model_is_waiting(tmp_path: Path) -> None:
    (gone,) = jobs_in(tmp_path, 1)
    begun(gone, "finished", 10)
    shutil.rmtree(gone.directory / "model")
    assert look(gone).waiting == (gone,)


def test_another_run_in_the_jobs_folder_does_not_count(tmp_path: Path) -> None:
    (wanted,) = jobs_in(tmp_path, 1)
    begun(changed(wanted, hash="other"), "finished", -10)
    assert look(wanted).waiting == (wanted,)


def test_ancestors_are_listed_while_they_run(tmp_path: Path) -> None:
    waiting, dense, later = (
        replace(job, steps=100) for job in (*jobs_in(tmp_path, 1), *jobs_in(tmp_path / "outputs", 2))
    )
    begun(dense, "started", -10, '{"step": 50}\n')
    found = look(waiting, ancestors=(dense, later), evidence=(CELL,))
    assert [run.job for run in found.running] == [dense]
    assert found.waiting == (waiting,)
    # 100 s each, one half done.
    assert found.left == TimeLeft(250.0, 0)


@pytest.mark.parametrize(
    ("lines", "step"),
    [
        (None, 0),
        ("", 0),
        ('{"step": 10, "train/loss": 1}\n{"step": 20}\n', 20),
        ('{"step": 10}\n{"step": 2', 10),
        ('{"step": 10}\n{"step": 20}', 20),
        ('{"epoch": 1}\n', 0),
        ('{"step": 10}\n[1]\n5\n"text"\nnull\n', 10),
        ("".join(f'{{"step": {step}, "train/loss": {step / 3}}}\n' for step in range(1, 2001)), 2000),
        ('{"step": 7}\n' + "x" * 100_000, 0),
    ],
    ids=["no file", "empty", "whole", "torn", "no newline", "no step", "odd", "long", "no line within the tail"],
)
def test_the_last_step_of_a_running_job(lines: str | None, step: int, tmp_path: Path) -> None:
    (wanted,) = jobs_in(tmp_path, 1)
    begun(wanted, "started", -10, lines)
    (running,) = look(wanted).running
    assert running.step == step
    assert running.share == min(1.0, step / 30)
    assert (running.rate is None) == (step == 0)


def test_time_left_from_the_running_job(tmp_path: Path) -> None:
    """Without a finished run, its seconds per step so far are used."""
    running, new = jobs_in(tmp_path, 2)
    begun(running, "started", -10, '{"step": 15}\n')
    begin = (running.directory / "report.json").stat().st_mtime
    low = time.time() - begin
    found = look(running, new)
    high = time.time() - begin
    (one,) = found.running
    assert one.rate is not None
    assert low / 15 <= one.rate <= high / 15
    assert found.left == TimeLeft(pytest.approx(one.rate * (15 + 30)), 0)
    # Nothing runs, nothing is known.
    assert look(new).left == TimeLeft(0.0, 1)


LINES = "".join(
    line + "\n"
    for line in (
        '{"step": 10, "train/loss": 0.9, "train/lr": 0.1, "sparsity/global": 0.1}',
        '{"step": 10, "epoch": 1, "eval/accuracy": 0.5, "eval/f1": null}',
        '{"step": 20, "train/loss": 0.8, "train/lr": 0.1, "sparsity/global": 0.2}',
        '{"step": 30, "train/loss": 0.7, "train/lr": 0.1, "sparsity/global": 0.3}',
    )
)


def test_the_latest_metrics_of_a_running_job(tmp_path: Path) -> None:
    (wanted,) = jobs_in(tmp_path, 1)
    begun(wanted, "started", -10, LINES + '{"step": 40, "tra')
    found = look(wanted).running[0].latest
    assert (found.step, found.every, found.loss, found.sparsity) == (30, 10, 0.7, 0.3)
    assert list(found.scores) == ["accuracy", "f1"]
    assert found.scores["accuracy"] == 0.5
    assert math.isnan(found.scores["f1"])


def test_the_last_evaluation_of_a_long_epoch_is_found(tmp_path: Path) -> None:
    (wanted,) = jobs_in(tmp_path, 1)
    line = '{{"step": {}, "train/loss": 0.123456789, "train/lr": 0.00001, "sparsity/global": 0.123456789}}\n'
    begun(wanted, "started", -10, LINES + "".join(line.format(step) for step in range(40, 4000, 10)))
    found = look(wanted).running[0].latest
    assert (found.step, found.scores["accuracy"]) == (3990, 0.5)


@pytest.mark.parametrize(
    ("ran", "ago", "quiet"),
    [
        (3.0, 50.0, False),
        (3.0, 70.0, True),
        # 30 s per step, a line every 10 steps: a line is expected every 5 minutes, and 25 minutes are unusual.
        (900.0, 70.0, False),
        (900.0, 1450.0, False),
        (900.0, 1550.0, True),
    ],
)
def test_a_job_that_does_not_write_is_quiet(ran: float, ago: float, quiet: bool, tmp_path: Path) -> None:
    (wanted,) = jobs_in(tmp_path, 1)
    begun(wanted, "started", -10, LINES)
    now = time.time()
    os.utime(wanted.directory / "metrics.jsonl", (now - ago, now - ago))
    os.utime(wanted.directory / "report.json", (now - ago - ran, now - ago - ran))
    (found,) = progress(Plan((), 1, (wanted,), ()), 0.0).running
    assert found.quiet == (pytest.approx(ago, abs=8) if quiet else None)
    # Its log counts as well.
    (wanted.directory / "train.log").touch()
    assert progress(Plan((), 1, (wanted,), ()), 0.0).running[0].quiet is None


def test_jobs_of_an_earlier_command_are_not_part_of_the_sweep(tmp_path: Path) -> None:
    own, other, done = jobs_in(tmp_path, 3)
    begun(done, "finished", -10)
    before = Plan((), 1, (own, other, done), ())
    plan = with_earlier(Plan((), 1, (own,), ()), before)
    assert [job.earlier for job in plan.jobs] == [False, True, True]
    found = progress(plan, SINCE)
    assert (found.waiting, found.done, found.total) == ((own,), (), 1)
    # But their times are used for its estimate.
    assert found.left == TimeLeft(3.0, 0)
    # Unless they are planned again.
    assert not any(job.earlier for job in with_earlier(before, plan).jobs)


def test_the_totals_of_a_sweep(tmp_path: Path) -> None:
    done, failed, running, new = jobs_in(tmp_path, 4)
    (dense,) = jobs_in(tmp_path / "outputs", 1)
    begun(done, "finished", -10)
    begun(failed, "failed", -20)
    for one in (running, dense):
        begun(one, "started", -10, '{"step": 15}\n')
    found = look(done, failed, running, new, ancestors=(dense,))
    assert found.total == 4
    assert found.share == pytest.approx((1 + 1 + 0.5) / 4)
    assert [run.is_ancestor for run in found.running] == [False, True]
    assert found.passed == pytest.approx(time.time() - SINCE, abs=5)
    assert not found.over
    # When all jobs have ended: up to the end of the last one.
    found = look(done, failed)
    assert found.over
    assert found.passed == pytest.approx(20, abs=0.1)
    assert found.idle == pytest.approx(time.time() - SINCE - 20, abs=5)
    assert not look(done, new).over


def test_the_last_finished_jobs(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, 7)
    for wanted, after in zip(jobs, [10, 70, 20, 60, 30, 50, 40], strict=True):
        begun(wanted, "finished", -after)
    assert [job.spec.seed for job, _ in look(*jobs).last] == [4, 6, 5, 3, 1]
    assert [job.spec.seed for job, _ in look(*jobs).done] == list(range(7))


def test_jobs_of_one_name_get_unique_names() -> None:
    jobs = [job(0, str(n), words=("task=toy", f"optimizer.lr={n}", "seed=0")) for n in (1, 2)]
    alone = job(1, "3", words=("task=toy", "optimizer.lr=1", "seed=1"))
    assert list(unique_names([*jobs, alone]).values()) == [
        "toy tiny 4x1 seed 0 optimizer.lr=1",
        "toy tiny 4x1 seed 0 optimizer.lr=2",
        "toy tiny 4x1 seed 1",
    ]


def test_the_disk_estimate_counts_every_kind_of_answers_and_tokens(tmp_path: Path) -> None:
    """Jobs of one dense model share their answers; another loss, or a longer text, has a file of its own."""
    million = 10**6
    jobs = [
        job(0, tmp_path / "a", ancestor="d", answer_bytes=4 * million, token_bytes=million),
        job(1, tmp_path / "b", ancestor="d", answer_bytes=4 * million, token_bytes=million),
        job(2, tmp_path / "c", ancestor="d", answer_bytes=2 * million, token_bytes=3 * million),
        job(3, tmp_path / "e", ancestor="d"),
    ]
    for order in (jobs, jobs[::-1]):
        assert "10 MB in the cache" in planning.table(Plan((), 1, tuple(order), ()), [], tmp_path, each=False)
