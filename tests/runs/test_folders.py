"""Names from a config as components of paths: none leaves the folders that the user chose."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from torch import nn

from hydraprune.config.identity import escapes, identify
from hydraprune.errors import UserError
from hydraprune.models.saving import save_model
from hydraprune.runs.directory import check_links
from hydraprune.utils.files import nearest

CONFIG: dict[str, Any] = {"phase": "dense", "seed": 0, "task": {"name": "t"}, "model": {"name": "m"}, "pattern": {}}
NAMES = {
    "up": "../../x",
    "only up": "..",
    "absolute": "/etc/passwd",
    "a home": "~/x",
    "nul": "a\0b",
    "a line": "a\nb",
    "backslashes": "..\\..\\x",
    "a drive": "C:x",
    "long": "x" * 5000,
    "cut at a dot": "x" * 99 + ".yyyyy",
    "a device": "NUL",
    "a device with an ending": "con.txt",
    "another device": "LPT1",
    "hidden": ".ssh",
    "of dots and spaces": " . . ",
    "empty": "",
    "odd": '<>:"|?*',
    "another script": "模型",
}


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_name_stays_one_component_of_a_path(name: str) -> None:
    odd = NAMES[name]
    for config, pattern in (
        ({**CONFIG, "task": {"name": odd}}, "p"),
        ({**CONFIG, "model": {"name": odd}}, "p"),
        (CONFIG, odd),
        ({**CONFIG, "phase": "sparse", "pruner": {"_target_": odd}, "pattern": {"target_sparsity": odd}}, "p"),
    ):
        folder = PurePosixPath(identify(config, pattern).folder)
        assert len(folder.parts) == 4
        for part in folder.parts:
            assert part.strip(".")
            assert not part.startswith(".")
            assert not part.endswith(".")
            assert len(part) <= 120
            assert set(part) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
            assert part.split(".")[0].upper() not in ("CON", "PRN", "AUX", "NUL", "COM1", "LPT1")


@pytest.mark.parametrize("name", [key for key in NAMES if key not in ("a home", "hidden", "another script")])
def test_sweep_names_that_leave_the_folder_are_detected(name: str) -> None:
    assert escapes(NAMES[name])


@pytest.mark.parametrize("name", ["default", "bert/first", "a sweep of mine", "2024-01-01", "v1.2", ".hidden"])
def test_allowed_sweep_names(name: str) -> None:
    assert not escapes(name)


def test_a_sweep_name_outside_the_folder_is_refused(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    inside = workplace / "inside"
    inside.mkdir()
    os.chdir(inside)
    finished = train("-m", *small, "sweep=../../x")
    assert finished.code == 2
    assert finished.err.count("\n") == 1
    assert "sweep='../../x': must be a name" in finished.err
    assert list(workplace.iterdir()) == [inside]
    assert list(inside.iterdir()) == []


def test_odd_model_and_task_names_stay_in_the_runs_folder(train: Callable[..., Any], workplace: Path) -> None:
    inside = workplace / "inside"
    inside.mkdir()
    os.chdir(inside)
    words = ("model=tiny", "task=toy", "task.train_examples=64", "task.evaluation_examples=32", "training.epochs=1")
    words = (*words, "pattern=dense", "model.name='../../../a'", "task.name='/etc/b'", "tracker=wandb")
    finished = train(*words, "tracker.tags=['../../t']")
    assert finished.code == 0, finished.err
    assert list(workplace.iterdir()) == [inside]
    assert {path.name for path in inside.iterdir()} == {"outputs", "wandb"}
    assert [str(path.relative_to(inside)) for path in (inside / "outputs").iterdir()] == ["outputs/_etc_b"]


def test_an_odd_name_of_a_part_is_refused(
    train: Callable[..., Any], small: tuple[str, ...], workplace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    confs = tmp_path_factory.mktemp("conf")
    (confs / "experiment").mkdir()
    parts = "".join(f'    "{name}": ${{pattern.parts.ffn}}\n' for name in ("../../x", r"\0"))
    (confs / "experiment" / "odd.yaml").write_text(f"# @package _global_\npattern:\n  parts:\n{parts}")
    finished = train(f"--config-dir={confs}", *small, "pattern=mixed", "experiment=odd")
    assert finished.code == 2
    assert "pattern.parts.'../../x': a part is named by letters" in finished.err
    assert list(workplace.iterdir()) == []


class Saved(nn.Module):
    """A model and tokenizer that save a file and a folder with a file."""

    def get_input_embeddings(self) -> None:
        """A model without embeddings."""

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_text("new")
        # As a tokenizer with several chat templates does.
        (folder / "templates").mkdir(exist_ok=True)
        (folder / "templates" / "tools.jinja").write_text("new")


def test_saving_replaces_a_link_and_keeps_its_target(tmp_path: Path) -> None:
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    run.mkdir()
    (elsewhere / "precious").write_text("kept")
    (run / "model").symlink_to(elsewhere)
    (run / ".model.7.tmp").symlink_to(elsewhere)
    saved = save_model(Saved(), Saved(), run)
    assert (elsewhere / "precious").read_text() == "kept"
    assert [path.name for path in elsewhere.iterdir()] == ["precious"]
    assert not saved.is_symlink()
    assert sorted(path.name for path in saved.iterdir()) == ["model.safetensors", "templates"]


@pytest.mark.parametrize(
    "name", ["model", "checkpoints", "metrics.jsonl", "report.json", "train.log", ".hydra", ".lock"]
)
def test_links_among_the_files_of_a_run_are_refused(name: str, tmp_path: Path) -> None:
    check_links(tmp_path, "run.root")
    (tmp_path / name).symlink_to("/nowhere")
    with pytest.raises(UserError, match=f"{name} in it is a link"):
        check_links(tmp_path, "run.root")


def test_a_link_in_a_runs_folder_is_refused(train: Callable[..., Any], workplace: Path) -> None:
    elsewhere, run = workplace / "elsewhere", workplace / "run"
    elsewhere.mkdir()
    run.mkdir()
    (elsewhere / ".precious").write_text("kept")
    (run / "checkpoints").symlink_to(elsewhere)
    finished = train("model=tiny", "task=toy", "training.epochs=1", "pattern=dense", f"hydra.run.dir={run}")
    assert finished.code == 2
    assert f"hydra.run.dir={run}: checkpoints in it is a link" in finished.err
    assert [path.name for path in elsewhere.iterdir()] == [".precious"]
    assert [path.name for path in run.iterdir()] == ["checkpoints"]


def test_the_nearest_existing_folder_is_at_most_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a drive may not exist."""
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert nearest(Path("/a/b")) == Path("/")
