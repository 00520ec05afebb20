"""Set-up of every test: no network, one thread, and the command line in this process."""

from __future__ import annotations

import atexit
import copy
import gc
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"
os.environ["HYDRAPRUNE_CACHE"] = tempfile.mkdtemp(prefix="hydraprune-cache-")

import pytest
import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings
from omegaconf import DictConfig

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # Inherited from nohup; tests of handlers need the default action.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
pytest_plugins = ("run_fixtures",)
torch.set_num_threads(1)

# No test asserts a time, on a busy machine least of all.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
atexit.register(shutil.rmtree, os.environ["HYDRAPRUNE_CACHE"], ignore_errors=True)

# Tests fork. What an earlier test left in this process, a process group with threads say, is not collected in the
# child: its threads do not exist there.
os.register_at_fork(after_in_child=gc.freeze)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
# Exit code of a command that a signal stopped.
STOPPED = 75


@dataclass(frozen=True)
class Finished:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    """Remove the handlers that Hydra adds to the root logger: they write to this test's captured output."""
    handlers = list(logging.getLogger().handlers)
    yield
    logging.getLogger().handlers[:] = handlers


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Restore the handlers of signals: one that a test leaves would keep `timeout` from ending the test run."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")]
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    if signals := sys.modules.get("hydraprune.utils.signals"):
        signals.reset()


@pytest.fixture(autouse=True)
def shared_compositions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose the configs of dense runs once per process: no test changes a conf/ in use."""
    if experiment := sys.modules.get("hydraprune.runs.experiment"):
        monkeypatch.setattr(
            experiment, "composed", lambda words: copy.deepcopy(_composed(_search_path(), tuple(words)))
        )


def _search_path() -> tuple[tuple[str, str], ...]:
    hydra: Any = GlobalHydra.instance().hydra  # each command has one of its own
    return tuple((place.provider, place.path) for place in hydra.config_loader.get_search_path().get_path())


@lru_cache(maxsize=256)
def _composed(_: tuple[tuple[str, str], ...], words: tuple[str, ...]) -> DictConfig:
    config: DictConfig = compose("config", list(words))
    return config


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def glue() -> Path:
    folder = SHARED / "hub" / "nyu-mll" / "glue"
    if not folder.is_dir():
        pytest.skip(f"no real GLUE data at {folder}")
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, and Hydra as it is when a program starts."""
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    yield tmp_path
    GlobalHydra.instance().clear()
    # State of the process: registered secrets, and the folder that W&B was started in.
    if redaction := sys.modules.get("hydraprune.utils.redaction"):
        redaction.forget_secrets()
    if "wandb" in sys.modules:
        from hydraprune.tracking.wandb_process import end_service

        end_service()


@pytest.fixture
def train(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Callable[..., Finished]:
    """`hydraprune train ...` in this process, from an empty folder."""

    def trained(*arguments: str) -> Finished:
        finished = _call(["hydraprune", "train", *arguments], monkeypatch, capfd)
        if finished.code == STOPPED and not getattr(request.module, "SENDS_SIGNALS", False):
            # It was meant for the test run, and stopped the command that was running.
            pytest.exit("stopped by a signal", STOPPED)
        return finished

    return trained


@pytest.fixture
def hydraprune(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """`hydraprune ...` in this process, from an empty folder."""
    return lambda *arguments: _call(["hydraprune", *arguments], monkeypatch, capfd)


def _call(argv: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Finished:
    from hydraprune.cli import main

    monkeypatch.setattr(sys, "argv", argv)
    for name in ("HYDRA_FULL_ERROR", "HYDRAPRUNE_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    GlobalHydra.instance().clear()
    capfd.readouterr()
    code = 0
    try:
        main()
    except SystemExit as error:
        code = int(error.code or 0)
    out, err = capfd.readouterr()
    return Finished(code, out, err)


# Overrides for a run of a few seconds.
SMALL = (
    "model=tiny",
    "task=toy",
    "task.train_examples=320",
    "task.evaluation_examples=64",
    "training.epochs=3",
    "training.batch_size=32",
    "scheduler.warmup=5",
    "scheduler.cooldown=5",
    "scheduler.frequency=4",
    "runtime.switch_density=0.65",  # tests that count sparse steps do not depend on the machine
    "dense.overrides=['training.epochs=1']",
)


@pytest.fixture
def small() -> tuple[str, ...]:
    return SMALL


@pytest.fixture
def bad_input(record_property: Callable[[str, object], None]) -> None:
    """Count the test as one of a bad input."""
    record_property("bad inputs", (1, "refused in one line"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many bad inputs, random kills and faults were tested, and how many passed."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    failed = {report.nodeid for report in reports if report.failed}
    for what in ("bad inputs", "random kills", "faults"):
        counted = {r.nodeid: value for r in reports for name, value in r.user_properties if name == what}
        tried = sum(count for count, _ in counted.values())
        good = sum(count for nodeid, (count, _) in counted.items() if nodeid not in failed)
        for end in sorted({end for _, end in counted.values()}):
            terminalreporter.write_line(f"{tried} {what}: {good} {end}")
