"""Stopping by signals: a run writes a checkpoint and resumes with the same bits."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cut_helpers import WORDS, Ask, left, log_of, same_bits

from hydraprune.config.messages import TRACEBACK, launched
from hydraprune.runs import run as runs
from hydraprune.runs import setup
from hydraprune.training import checkpoints, evaluation, loop
from hydraprune.utils import signals

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

SENDS_SIGNALS = True
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT")


@pytest.fixture(autouse=True)
def own_signals(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Restore the test runner's handlers afterwards; and log as the command line does."""
    caplog.set_level(logging.INFO)
    numbers = [getattr(signal, name) for name in (*SIGNALS, "SIGUSR2")]
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    signals.reset()


def at(step: int, then: Callable[[], Any]) -> Callable[..., Any]:
    """A `take_step` that calls `then` within a step."""

    def take_step(run: Any, batches: Any, now: int, clock: Any) -> Any:
        if now == step:
            then()
        return loop_take_step(run, batches, now, clock)

    loop_take_step = loop.take_step
    return take_step


def send(*numbers: int) -> Callable[[], None]:
    def sent() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return sent


@pytest.fixture
def typed(train: Callable[..., Any], small: tuple[str, ...]) -> Callable[[], Any]:
    """Run the same command each time it is called."""
    words = [word for word in small if not word.startswith(("scheduler.", "dense."))]
    return lambda: train(*words, *WORDS, "training.checkpoint_every=null", "pattern=dense")


def test_a_run_stopped_by_signals_resumes_with_the_same_bits(
    typed: Callable[[], Any], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two signals in different steps of one run, away from regular checkpoints."""
    experiment = ask("training.checkpoint_every=null", "pattern=dense")
    runs.execute(experiment)
    folder = experiment.directory
    whole, entries = left(folder), {path.name for path in folder.iterdir()}
    folder.rename("whole")

    for step, name in ((6, "SIGTERM"), (17, "SIGINT")):
        with monkeypatch.context() as patched:
            patched.setattr(loop, "take_step", at(step, send(getattr(signal, name))))
            stopped = typed()
        ctrl_c = name == "SIGINT"
        assert stopped.code == (130 if ctrl_c else 75), stopped.err
        first, last = [line for line in stopped.err.splitlines() if line.startswith("hydraprune: ")]
        assert first == f"hydraprune: {name}: stopping with a checkpoint" + "; Ctrl-C again ends it now" * ctrl_c
        why = "interrupted" if ctrl_c else f"stopped by {name}"
        assert last == f"hydraprune: {why}; the same command resumes from here"
        assert f"Stopped after step {step + 1} of 30, with a checkpoint" in log_of(folder)
        assert (folder / "checkpoints" / f"step-{step + 1:09d}.safetensors").is_file()
        assert json.loads((folder / "report.json").read_text())["status"] == "started"
    assert typed().code == 0
    assert log_of(folder).count("Resuming from step") == 2
    now = left(folder)
    assert now[:2] == whole[:2]
    assert same_bits(now[2], whole[2])
    assert {path.name for path in folder.iterdir()} - {".hydra"} == entries


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGHUP", 75), ("SIGINT", 130)], ids=str)
def test_every_signal_is_deferred_and_has_its_exit_code(name: str, code: int) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with signals.deferred():
        signals.check()
        send(number)()
        with pytest.raises(signals.Stopped) as found:
            signals.check()
    assert (found.value.number, signals.exit_code(found.value)) == (number, code)
    signals.check()
    assert signal.getsignal(number) == before
    assert signals.exit_code(KeyboardInterrupt()) == 130


@pytest.mark.parametrize("words", [("pattern=4x1",), ("pattern=2:4", "pruner=wanda", "training.epochs=0")])
def test_a_signal_during_an_evaluation(
    words: tuple[str, ...], ask: Ask, ends: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = ask(*words)
    runs.execute(experiment)
    folder = experiment.directory
    whole = left(folder)
    folder.rename("whole")
    score, left_to_go = evaluation._predict, 2 if experiment.config["training"]["epochs"] else 1

    def stopped(*arguments: Any) -> Any:
        nonlocal left_to_go
        left_to_go -= 1
        if not left_to_go:
            send(signal.SIGTERM)()
        return score(*arguments)

    monkeypatch.setattr(evaluation, "_predict", stopped)
    with pytest.raises(signals.Stopped):
        runs.execute(experiment)
    monkeypatch.setattr(evaluation, "_predict", score)
    runs.execute(experiment)
    now = left(folder)
    assert now[:2] == whole[:2]
    assert same_bits(now[2], whole[2])
    assert same_bits(ends[-1], ends[-2])
    if experiment.config["training"]["epochs"]:
        assert "Resuming from step 20 of 30" in log_of(folder)


def test_a_signal_while_saving_stops_the_finished_run(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = ask("pattern=dense")
    save = runs.save_model

    def saving(*arguments: Any) -> Any:
        send(signal.SIGTERM)()
        return save(*arguments)

    monkeypatch.setattr(runs, "save_model", saving)
    with pytest.raises(signals.Stopped):
        runs.execute(experiment)
    assert json.loads((experiment.directory / "report.json").read_text())["status"] == "finished"


def test_a_signal_before_the_first_step_stops_at_once(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = ask("pattern=dense")
    signals.listen()
    monkeypatch.setattr(setup, "prepare", lambda *_: send(signal.SIGTERM)())
    with pytest.raises(signals.Stopped):
        runs.execute(experiment)
    assert not (experiment.directory / "checkpoints").exists()


def test_an_earlier_handler_is_called_after_the_checkpoint(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """As submitit's: it ignores one signal and requeues its job by another."""
    experiment = ask("training.checkpoint_every=null", "pattern=dense")
    heard: list[tuple[int, list[str]]] = []

    def theirs(number: int, _: Any) -> None:
        heard.append((number, sorted(path.name for path in experiment.directory.glob("checkpoints/*"))))
        if number == signal.SIGUSR2:
            raise SystemExit(255)

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, theirs)
    monkeypatch.setattr(loop, "take_step", at(3, send(signal.SIGTERM)))
    monkeypatch.setattr(loop, "take_step", at(7, send(signal.SIGUSR2)))
    with pytest.raises(SystemExit):
        runs.execute(experiment)
    assert heard == [
        (signal.SIGTERM, ["step-000000004.safetensors"]),
        (signal.SIGUSR2, ["step-000000004.safetensors", "step-000000008.safetensors"]),
    ]
    assert signal.getsignal(signal.SIGTERM) is theirs


def test_a_second_ctrl_c_ends_the_process(ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    experiment = ask("pattern=dense")
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(tmp_path / "output", os.O_CREAT | os.O_WRONLY), 2)
            signal.alarm(120)
            stuck = at(5, lambda: (send(signal.SIGINT, signal.SIGINT)(), time.sleep(1000)))
            monkeypatch.setattr(loop, "take_step", stuck)
            runs.execute(experiment)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert "the same command resumes from the last checkpoint" in (tmp_path / "output").read_text()
    assert [path.name for path in (experiment.directory / "checkpoints").iterdir()] == ["step-000000004.safetensors"]


def test_a_checkpoint_that_cannot_be_written_is_logged(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = ask("pattern=dense")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_state", full)
    monkeypatch.setattr(loop, "take_step", at(5, send(signal.SIGTERM)))
    with pytest.raises(signals.Stopped):
        runs.execute(experiment)
    assert "No checkpoint at step 6 ([Errno 28] No space left on device)" in caplog.text
    assert "with a checkpoint" not in caplog.text


def test_an_ignored_sigint_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals.deferred():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_closed_terminal_does_not_change_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    def hung_up() -> None:
        raise signals.Stopped(signal.SIGHUP)

    for name in ("HYDRA_FULL_ERROR", TRACEBACK):
        monkeypatch.setenv(name, "0")  # `launched` sets them
    monkeypatch.setattr(sys, "argv", ["hydraprune", "train"])
    monkeypatch.setattr(sys, "stderr", Gone())
    with pytest.raises(SystemExit) as ended:
        launched(hung_up)
    assert ended.value.code == signals.REQUEUE
