"""What killed processes leave in a run's folder, folders that two runs want, and finished runs without their model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cut_helpers import Ask, same_bits
from saved_run_helpers import run_folders, weights_of
from spec_helpers import changed

from hydraprune.errors import UserError
from hydraprune.runs import run as runs
from hydraprune.runs.directory import check_directory, stamp
from hydraprune.utils.atomic import remove_leftovers
from hydraprune.utils.weights_files import missing_weights

NAMES = ("report.json", "config.yaml", "metrics.jsonl", "model", ".hydra/config.yaml", ".hydra/hydra.yaml")


def hidden(place: Path) -> Path:
    return place.with_name(f".{place.name}.4711.tmp")


def test_what_a_killed_process_left_is_removed_at_the_next_start(ask: Ask) -> None:
    experiment = ask("pattern=dense")
    folder = experiment.directory
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(stamp(experiment))
    for name in NAMES:
        left = hidden(folder / name)
        left.parent.mkdir(exist_ok=True)
        left.write_text("half")
    mine = [folder / ".notes.txt.4711.tmp", folder / ".report.json.mine.tmp", folder / "report.json.tmp"]
    for file in mine:
        file.write_text("of the user")
    assert runs.execute(experiment).finished
    assert sorted(folder.rglob("*.tmp")) == sorted(mine)
    # Also beside a run that is finished.
    hidden(folder / "report.json").write_text("half")
    assert runs.execute(experiment).finished
    assert sorted(folder.rglob("*.tmp")) == sorted(mine)


def test_what_another_process_is_writing_is_kept(tmp_path: Path) -> None:
    old, new = tmp_path / ".plan.json.99999999.tmp", tmp_path / ".plan.json.99999998.tmp"
    own = tmp_path / f".plan.json.{os.getpid()}.tmp"
    for file in (old, new, own):
        file.write_text("half")
        os.utime(file, (0, 0) if file != new else None)
    remove_leftovers(tmp_path, ("plan.json",), live=True)
    assert sorted(tmp_path.iterdir()) == sorted((new, own))


def test_a_refused_run_writes_nothing_into_the_folder_of_another(ask: Ask) -> None:
    """Both were checked before either of them wrote."""
    first, second = (replace(ask("pattern=dense", f"seed={seed}"), directory=Path("shared")) for seed in (0, 1))
    for experiment in (first, second):
        check_directory(experiment)
    runs.execute(first, opened=lambda: Path("shared/.hydra").mkdir())
    with pytest.raises(UserError, match="holds another run"):
        runs.execute(second, opened=lambda: pytest.fail("the second run wrote its config"))


@pytest.mark.parametrize("subfolder", ["", ".", "kept"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_kill_while_hydras_files_are_written_is_no_other_run(
    subfolder: str, count: int, train: Callable[..., Any], small: tuple[str, ...]
) -> None:
    words = ("model=tiny", "task=toy", "task.train_examples=64", "task.evaluation_examples=32", "training.epochs=1")
    words = (*words, "pattern=dense", "hydra.run.dir=mine", f"hydra.output_subdir={subfolder}")
    place = Path("mine", subfolder if subfolder not in ("", ".") else ".hydra")
    place.mkdir(parents=True)
    for name in ("config.yaml", "hydra.yaml")[:count]:
        (place / name).write_text("{}\n")
    hidden(place / "overrides.yaml").write_text("half")
    for end in ("step", "Finished already"):
        finished = train(*words)
        assert finished.code == 0, finished.err
        assert end in finished.out
    assert {file.name for file in place.iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert "seed: 0" in (place / "config.yaml").read_text()


@pytest.mark.parametrize("subfolder", ["..", "/tmp/x", "model", "a/b", "checkpoints"])
def test_hydras_files_outside_of_their_folder_are_refused(
    subfolder: str, train: Callable[..., Any], workplace: Path
) -> None:
    finished = train("model=tiny", "task=toy", "pattern=dense", f"hydra.output_subdir={subfolder}")
    assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
    assert f"hydra.output_subdir={subfolder}: must be a name" in finished.err
    assert list(workplace.iterdir()) == []


def _cut(model: Path) -> None:
    os.truncate(model / "model.safetensors", 2000)


def _grown(model: Path) -> None:
    with (model / "model.safetensors").open("ab") as file:
        file.write(b"more")


def _zeroed(model: Path) -> None:
    (model / "model.safetensors").write_bytes(bytes((model / "model.safetensors").stat().st_size))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "gone": (lambda model: (model / "model.safetensors").unlink(), "model/model.safetensors"),
    "cut": (_cut, "model/model.safetensors"),
    "grown": (_grown, "model/model.safetensors"),
    "zeroed": (_zeroed, "model/model.safetensors"),
    "empty": (lambda model: (model / "model.safetensors").write_bytes(b""), "model/model.safetensors"),
    "without a config": (lambda model: (model / "config.json").unlink(), "model/config.json"),
    "an index of missing files": (
        lambda model: (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "one"}}') and None,
        "model/one",
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_finished_run_without_its_whole_model_is_made_again(
    how: str, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = ask("pattern=dense")
    folder = experiment.directory
    first = runs.execute(experiment)
    weights = {name: weight.clone() for name, weight in weights_of(folder).items()}  # not the file, which is damaged
    (folder / "model" / "mine.txt").write_text("precious")
    damage, named = DAMAGE[how]
    damage(folder / "model")
    again = runs.execute(experiment)
    assert f"{named} is missing or incomplete: the finished run is made again" in caplog.text
    assert changed(again, seconds={}) == changed(first, seconds={})
    assert same_bits(weights_of(folder), weights)
    # Nothing that was there is lost.
    assert (folder / "model-before-1" / "mine.txt").read_text() == "precious"
    assert json.loads((folder / "report-before-1.json").read_text())["final"] == first.final
    assert missing_weights(folder / "model") is None


def test_a_sweep_makes_the_model_again(train: Callable[..., Any], small: tuple[str, ...], workplace: Path) -> None:
    words = ("-m", *small[:4], "training.epochs=1", "pattern=dense", "seed=0,1")
    assert train(*words).code == 0
    first, _ = run_folders(workplace / "outputs", "dense")
    (first / "model" / "model.safetensors").unlink()
    finished = train(*words)
    assert finished.code == 0, finished.err
    assert "1 finished" in finished.out
    assert missing_weights(first / "model") is None
