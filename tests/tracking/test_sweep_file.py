"""docs/wandb_sweep.yaml: what W&B makes of it, and whether train.py understands every word of that."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb.wandb_agent
import yaml
from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
from wandb.sdk.launch.sweeps.utils import load_sweep_config

FILE = Path(__file__).parents[2] / "docs" / "wandb_sweep.yaml"
TEXT = FILE.read_text()
# As `wandb sweep` reads it.
SWEEP: dict[str, Any] = load_sweep_config(str(FILE)) or {}
# The other method, which stands there as a comment, in place of the grid.
_COMMENTED = re.findall(r"^#   (.+)$", TEXT.partition("# method: bayes")[2], re.MULTILINE)
BAYES: dict[str, Any] = {**SWEEP, "method": "bayes", **yaml.safe_load("\n".join(_COMMENTED))}

# What the server's schema knows of a sweep and of a parameter. W&B's own package holds none.
SWEEP_KEYS = {"program", "name", "method", "metric", "parameters", "command", "run_cap"}
DRAWN = {"uniform", "log_uniform_values", "int_uniform", "q_uniform", "q_log_uniform_values", "normal"}


def ends(parameter: Mapping[str, Any]) -> list[Any]:
    """The values of a parameter at its ends; all of them where it has few."""
    if "value" in parameter:
        return [parameter["value"]]
    return list(parameter["values"]) if "values" in parameter else [parameter["min"], parameter["max"]]


def corners(sweep: Mapping[str, Any]) -> list[dict[str, Any]]:
    parameters = sweep["parameters"]
    every = itertools.product(*(ends(parameter) for parameter in parameters.values()))
    return [dict(zip(parameters, values, strict=True)) for values in every]


def expanded(
    sweep: Mapping[str, Any], values: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch, place: Path
) -> list[str]:
    """The command that W&B's agent would run for these values: its own code, up to starting the process."""
    started: list[list[str]] = []

    def start(command: list[str], **_: Any) -> SimpleNamespace:
        started.append(command)
        return SimpleNamespace()

    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", start)
    for name, value in {"WANDB_RUN_ID": "none", "WANDB_SWEEP_PARAM_PATH": "none", "WANDB_DIR": str(place)}.items():
        monkeypatch.setenv(name, value)
    agent = wandb.wandb_agent.Agent.__new__(wandb.wandb_agent.Agent)
    vars(agent).update(_in_jupyter=False, _function=None, _forward_signals=False, _run_processes={})
    agent._sweep_command = list(sweep["command"])
    arguments = {name: {"value": value} for name, value in values.items()}
    agent._command_run({"run_id": "r", "program": sweep["program"], "args": arguments})
    (command,) = started
    return command


@pytest.mark.parametrize("sweep", [SWEEP, BAYES], ids=["grid", "bayes"])
def test_it_is_a_sweep(sweep: dict[str, Any]) -> None:
    assert set(sweep) <= SWEEP_KEYS
    assert sweep["method"] in ("grid", "random", "bayes")
    assert (FILE.parents[1] / sweep["program"]).is_file()
    assert sweep["metric"].keys() == {"name", "goal"}
    assert sweep["metric"]["name"] == "headline" or sweep["metric"]["name"].startswith("eval/")
    assert sweep["metric"]["goal"] in ("maximize", "minimize")
    for name, parameter in sweep["parameters"].items():
        assert set(parameter) in ({"value"}, {"values"}, {"distribution", "min", "max"}), name
        if sweep["method"] == "grid":
            assert "distribution" not in parameter, name
        if "values" in parameter:
            assert len(set(parameter["values"])) == len(parameter["values"]) > 1, name
        if "distribution" in parameter:
            assert parameter["distribution"] in DRAWN
            assert type(parameter["min"]) is type(parameter["max"])
            assert parameter["min"] < parameter["max"]
        assert len({type(value) for value in ends(parameter)}) == 1, f"{name}: YAML reads one of them otherwise"
    macros = [word for word in sweep["command"] if word.startswith("$")]
    assert macros == ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
    assert "tracker=wandb" in sweep["command"]
    # What W&B does to it before it sends it changes nothing.
    assert _validate_config_and_fill_distribution(sweep) == sweep


def test_it_says_how_it_is_started() -> None:
    assert f"wandb sweep {FILE.relative_to(FILE.parents[1])}" in TEXT
    assert "wandb agent " in TEXT


def test_the_command_that_the_agent_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = {"pattern": "2:4", "optimizer.lr": 0.0005, "seed": 2}
    assert expanded(SWEEP, values, monkeypatch, tmp_path) == [
        "/usr/bin/env", "python", "train.py", "tracker=wandb", "task=mrpc", "model=bert_mini",
        "run.root=outputs/wandb_sweep", "pattern=2:4", "optimizer.lr=0.0005", "seed=2",
    ]  # fmt: skip
    assert {(c["pattern"], c["optimizer.lr"], c["seed"]) for c in corners(SWEEP)} == set(
        itertools.product(("4x1", "2:4"), (0.0005, 0.001), (0, 1, 2))
    )


@pytest.mark.parametrize("sweep", [SWEEP, BAYES], ids=["grid", "bayes"])
def test_every_corner_composes(
    sweep: dict[str, Any],
    train: Callable[..., Any],
    root: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for values in corners(sweep):
        command = expanded(sweep, values, monkeypatch, workplace)
        assert command[:3] == ["/usr/bin/env", "python", "train.py"]
        shown = train(*command[3:], "--cfg", "job")
        assert shown.code == 0, shown.err
        config = yaml.safe_load(shown.out)
        assert config["tracker"]["_target_"].startswith("hydraprune.tracking.")
        assert (config["task"]["name"], config["model"]["name"], config["run"]["root"]) == (
            "mrpc", "bert_mini", "outputs/wandb_sweep",
        )  # fmt: skip
        for key, value in values.items():
            if key == "pattern":
                assert (config["pattern"].get("rows"), config["pattern"].get("keep")) == {
                    "4x1": (4, None), "2:4": (None, 2),
                }[value]  # fmt: skip
                continue
            found: Any = config
            for part in key.split("."):
                found = found[part]
            assert float(found) == value, key


def test_the_command_starts_train_py(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the agent starts it: from the folder of train.py, by the python of the environment."""
    command = expanded(SWEEP, corners(SWEEP)[0], monkeypatch, tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*command, "--cfg", "job"],
        cwd=root,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "lr: 0.0005" in done.stdout
