"""Secrets in every place where a user may put one: no file and no output contains them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hydraprune.config.messages import launched

CANARIES = {
    "HF_TOKEN": "hf_TokenOfTheEnvironment0001",
    "WANDB_API_KEY": "c0ffee02c0ffee02c0ffee02c0ffee02c0ffee02",
    "CANARY_PASSWORD": "interpolated pass'word<3>",
    "DATABASE_SECRET": "only-in-a-message-004",
    "typed": "typed-on-the-line-005",
    "file": "in-a-config-file-006",
    "address": "in-an-address-007",
    "swept": "ghp_sweptWordsOfATokenNumber008",
    "tag": "hf_GivenToTheTrackerAsATag0009",
}
# A prefix of each, to recognize it if only part of it was written.
SIGNS = {name: value[:12] for name, value in CANARIES.items()}

LIBRARY = """
import os, torch
from hydraprune.tracking import Silent

class Talks(Silent):
    def __init__(self, api_key, password, url, note):
        self.all = [api_key, password, url, note, os.environ["DATABASE_SECRET"]]
    def start(self, about):
        print("printed", *self.all)
        open("told_tracker.txt", "w").write(repr(about))
    def log(self, values, step):
        raise RuntimeError("server said no to " + " ".join(self.all))

class Fails(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("cannot step with " + os.environ["DATABASE_SECRET"] + " and " + os.environ["HF_TOKEN"])
"""
PLANTED = {
    "talks.py": LIBRARY,
    "conf/experiment/quiet.yaml": "# @package _global_\nseed: 0\n",
    "conf/experiment/refused.yaml": "# @package _global_\noptimizer:\n  lr: ${oc.env:HF_TOKEN}\n",
    "conf/experiment/failing.yaml": "# @package _global_\nseed: 1\noptimizer:\n  _target_: talks.Fails\n",
    "conf/experiment/talking.yaml": (
        "# @package _global_\ntracker:\n  _target_: talks.Talks\n"
        f"  password: {CANARIES['file']}\n  note: ${{oc.env:CANARY_PASSWORD}}\n"
    ),
}
RUN = ("model=tiny", "task=toy", "task.train_examples=64", "task.evaluation_examples=32", "training.epochs=1")
WORDS = ("--config-dir=conf", *RUN, "pattern=dense", "optimizer=sgd")


@pytest.fixture
def planted(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in CANARIES.items():
        if name.isupper():
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("HYDRAPRUNE_TARGETS", "talks.")
    monkeypatch.syspath_prepend(str(workplace))
    for name, text in PLANTED.items():
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        (workplace / name).write_text(text)
    return workplace


def leaks(folder: Path, *printed: str) -> list[tuple[str, str]]:
    """(file or output, name of the canary) for every canary that is found."""
    files = [path for path in folder.rglob("*") if path.is_file() and str(path.relative_to(folder)) not in PLANTED]
    texts = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    texts |= {f"printed {place}": text.encode() for place, text in enumerate(printed)}
    return [(place, name) for place, text in texts.items() for name, sign in SIGNS.items() if sign.encode() in text]


def redacted_in(folder: Path) -> set[str]:
    found = ((path.name, path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    return {name for name, data in found if b"<redacted>" in data or b"&lt;redacted" in data}


def test_a_run_leaves_no_secret(train: Callable[..., Any], planted: Path) -> None:
    words = (
        *WORDS,
        "experiment=talking",
        f"+tracker.api_key={CANARIES['typed']}",
        f"+tracker.url='https://me:{CANARIES['address']}@host/x'",
    )
    shown = train("--cfg", "job", *words)
    assert shown.code == 0
    assert "<redacted>" in shown.out
    finished = train(*words)
    assert finished.code == 0, finished.err
    assert "continues without its tracker" in finished.out + finished.err
    mistyped = train(*words, f"tracker.pasword={CANARIES['typed']}")
    assert mistyped.code == 2
    assert "tracker.pasword=<redacted>" in mistyped.err
    again = train(*words)
    assert "Finished already" in again.out  # redaction does not change the run
    commands = (shown, finished, mistyped, again)
    assert leaks(planted, *(text for one in commands for text in (one.out, one.err))) == []
    assert redacted_in(planted) == {
        *("config.yaml", "hydra.yaml", "overrides.yaml"),
        *("report.json", "train.log", "told_tracker.txt"),
    }


def test_a_sweep_leaves_no_secret(train: Callable[..., Any], hydraprune: Callable[..., Any], planted: Path) -> None:
    words = (*WORDS, "experiment=quiet,refused,failing", "tracker=wandb", f"tracker.tags=[{CANARIES['tag']}]")
    finished = train("-m", *words, f"+hydra.job.env_set.GITHUB_TOKEN={CANARIES['swept']}")
    assert finished.code == 1
    assert "optimizer.lr=<redacted>: must be a number" in finished.err
    assert "cannot step with <redacted> and <redacted>" in finished.err
    folder = planted / "multirun_sweeps" / "default"
    page = hydraprune("dashboard", str(folder))
    assert page.code == 0, page.err
    table = hydraprune("report", str(folder))
    assert leaks(planted, finished.out, finished.err, page.out, page.err, table.out, table.err) == []
    kept = redacted_in(planted)
    assert {"multirun.yaml", "plan.json", "report.json", "config.yaml", "matrix.md"} <= kept
    assert "dashboard.html" in kept
    assert any(name.endswith(".wandb") for name in kept)


def test_a_traceback_has_no_secret(
    planted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError(f"no entry with {CANARIES['HF_TOKEN']}") from ValueError(CANARIES["CANARY_PASSWORD"])

    monkeypatch.setattr("sys.argv", ["hydraprune"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(SystemExit):
        launched(fail)
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.count("<redacted>") == 3
    assert leaks(planted, printed) == []
