"""The settings of W&B: overrides, the environment, W&B's files, and a sweep's agent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from wandb_helpers import KEY, about_of, folders, read, refusing, warned

from hydraprune.config.composition import conf_dir, resolved
from hydraprune.doctor import network
from hydraprune.tracking import About, Mask, Outcome, WandB
from hydraprune.tracking.wandb_auth import resolved_mode


def about(directory: Path, **other: Any) -> About:
    config = {"pattern": {"rows": 4}, "optimizer": {"lr": 0.1}, "model": {"layers": 2, "heads": 4}}
    return about_of(directory, **{"config": config, **other})


def track(tracker: WandB, about: About) -> None:
    tracker.start(about)
    tracker.log({"train/loss": 1.0}, 1)
    tracker.close(None)


def test_overrides_win_over_the_environment(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*small[:4], "training.epochs=1", "pattern=dense", "tracker=wandb")
    for name, value in (("MODE", "disabled"), ("PROJECT", "theirs"), ("ENTITY", "team")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    assert train(*words).code == 0
    assert folders(workplace) == []

    monkeypatch.setenv("WANDB_MODE", "offline")
    assert train(*words, "seed=1", "tracker.project=ours").code == 0
    (first,) = folders(workplace)
    assert (read(first).run["project"], read(first).run["entity"]) == ("ours", "team")
    assert train(*words, "seed=2", "tracker.mode=disabled").code == 0
    assert folders(workplace) == [first]

    monkeypatch.setenv("WANDB_MODE", "cloud")
    refused = train(*words, "seed=3")
    assert refused.code == 2
    assert "tracker.mode=cloud: must be auto, online, offline or disabled" in refused.err


def test_names_from_the_environment(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name and kind of the requested run alone: the dense run that it needs is another one."""
    values = {"RUN_GROUP": "theirs", "NAME": "my run", "JOB_TYPE": "mine", "TAGS": "one, two"}
    for name, value in values.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    track(WandB(tags=["ours"]), about(workplace / "a"))
    track(WandB(), about(workplace / "b", hash="def", requested=False))
    first, second = (read(folder) for folder in folders(workplace))
    assert (first.run["display_name"], first.run["run_group"], first.run["job_type"]) == ("my run", "theirs", "mine")
    assert second.run["run_group"] == "theirs"
    assert second.run["display_name"] != "my run"
    assert second.run["job_type"] != "mine"
    assert {"ours", "one", "two"} <= set(first.tags)
    assert first.tags.count("one") == 1
    assert {"one", "two"} <= set(second.tags)


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({"WANDB_DISABLED": "true"}, "disabled"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "offline"}, "offline"),
    ],
    ids=str,
)
def test_doctor_and_a_run_agree_on_the_mode(
    variables: dict[str, str], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert resolved_mode("auto") == mode
    assert f"not asked (mode {mode})" in network.wandb("auto").found


def test_project_and_entity_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        first = resolved(compose("config", ["tracker=wandb"]))["tracker"]
        monkeypatch.setenv("WANDB_PROJECT", "theirs")
        monkeypatch.setenv("WANDB_ENTITY", "team")
        second = resolved(compose("config", ["tracker=wandb"]))["tracker"]
    assert (first["mode"], first["project"], first["entity"]) == ("auto", "hydraprune", None)
    assert (second["mode"], second["project"], second["entity"]) == ("auto", "theirs", "team")


@pytest.mark.parametrize(("word", "count"), [("", 1), ("dryrun", 1), ("offline", 1), ("disabled", 0)])
def test_wandbs_own_modes(word: str, count: int, workplace: Path) -> None:
    track(WandB(word, project="", entity=""), about(workplace))
    assert len(folders(workplace)) == count
    assert (workplace / "wandb").exists() == bool(count)


@pytest.mark.parametrize("how", ["WANDB_DISABLED", "its settings"])
def test_auto_writes_nothing_where_wandb_is_disabled(
    how: str, workplace: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "WANDB_DISABLED":
        monkeypatch.setenv(how, "true")
    else:
        (fresh / "wandb_config_dir").mkdir()
        (fresh / "wandb_config_dir" / "settings").write_text("[default]\nmode = disabled\n")
    track(WandB(), about(workplace))
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("where", ["nowhere", "the environment", "netrc"])
def test_auto_is_online_with_credentials_only(
    where: str, workplace: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = refusing()
    monkeypatch.setenv("WANDB_BASE_URL", address)
    if where == "the environment":
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    if where == "netrc":
        (fresh / "netrc").write_text(f"machine {address.removeprefix('http://')}\n  login user\n  password {KEY}\n")
    track(WandB(), about(workplace))
    tried = [line for line in warned(caplog) if "cannot be reached" in line]
    assert len(tried) == (0 if where == "nowhere" else 1)
    assert len(folders(workplace)) == 1


@pytest.mark.parametrize(("key", "cause"), [("", "no credentials"), ("short", "WANDB_API_KEY")])
@pytest.mark.parametrize("mode", ["auto", "online"])
def test_without_a_key_there_is_no_prompt(
    key: str,
    cause: str,
    mode: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    track(WandB(mode), about(workplace))
    lines = warned(caplog)
    assert len(lines) == (0 if (key, mode) == ("", "auto") else 1)
    assert all(cause in line for line in lines)
    assert capfd.readouterr() == ("", "")
    assert [folder.name.startswith("offline-run-") for folder in folders(workplace)] == [True]


def test_an_agents_run_is_the_requested_one(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = {"pattern": "2:4", "optimizer.lr": 0.5, "model": {"layers": 5}}
    file = workplace / "config.yaml"
    file.write_text(json.dumps({key: {"value": value} for key, value in sweep.items()}))
    agents = {"SWEEP_ID": "sweep", "SWEEP_PARAM_PATH": str(file), "RUN_ID": "agents", "PROJECT": "theirs"}
    for name, value in agents.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    track(WandB("offline", project="theirs"), about(workplace, hash="dense", phase="dense", requested=False))
    track(WandB("offline", project="theirs"), about(workplace, hash="sparse"))
    dense, sparse = (read(folder) for folder in folders(workplace))
    assert (dense.run["run_id"], dense.run.get("sweep_id"), dense.run["project"]) == ("dense", None, "theirs")
    assert dense.config["pattern"] == {"rows": 4}
    assert (sparse.run["run_id"], sparse.run["sweep_id"], sparse.run["project"]) == ("agents", "sweep", "theirs")
    # A sweep's parameter hides the group of its name, but the composed config is stored too.
    assert sparse.config["pattern"] == "2:4"
    assert sparse.config["optimizer.lr"] == 0.5
    assert sparse.config["model"] == {"layers": 5, "heads": 4}
    assert sparse.config["composed"] == about(workplace).config


def test_two_at_once_do_not_mix(workplace: Path) -> None:
    trackers = {id: WandB("offline") for id in ("one", "two")}
    for id, tracker in trackers.items():
        tracker.start(about(workplace, hash=id))
    for step in range(3):
        for id, tracker in trackers.items():
            tracker.log({f"train/{id}": 1.0}, step)
    for tracker in trackers.values():
        tracker.close(None)
    runs = {run.run["run_id"]: run for run in map(read, folders(workplace))}
    assert {id: run.history for id, run in runs.items()} == {
        id: [{f"train/{id}": 1, "step": step} for step in range(3)] for id in trackers
    }


def test_odd_values_do_not_raise(workplace: Path) -> None:
    tracker = WandB("offline", tags="one", log_model=True)
    tracker.start(about(workplace, task="ä/b: " + "x" * 200, cell="g" * 300, pattern="t" * 100))
    for values in ({}, {"eval/a": float("nan")}, {"eval/a": float("inf"), "train/loss": -float("inf")}):
        tracker.log(values, 1)
    (workplace / "model").mkdir()
    (workplace / "model" / "weights").write_text("w")
    report = {
        "task": "t", "model": "m", "pattern": "p", "seed": 0, "phase": "sparse", "metric": "a", "final": {"a": None},
        "best": {}, "dense": None, "sparsity": None, "parts": {}, "seconds": {}, "pattern_ok": None, "steps": None,
    }  # fmt: skip
    tracker.end(Outcome(report, workplace / "model", lambda: {"2:4": Mask("w", np.zeros((2, 3), np.bool_))}))
    tracker.close(KeyboardInterrupt())
    run = read(folders(workplace)[-1])
    # It was finished; a later signal, deferred until the model was saved, is not an error of the run.
    assert run.exit_code == 0
    assert run.summary.get("error") is None
    assert "t" * 64 in run.tags
    assert run.tags[-1] == "one"
    assert any(artifact["type"] == "model" for artifact in run.of_type("artifact"))
