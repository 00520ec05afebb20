"""Contents of inputs: data files and model folders that changed are found when a run is started again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_helpers import CSV
from family_helpers import save_checkpoint
from safetensors.torch import load_file, save_file
from saved_run_helpers import report_of, run_folders

from hydraprune.runs import run as runs
from hydraprune.utils.digests import file_digest, folder_digest

FILE = (
    *("model=tiny", "task=file", "task.path=train.csv", "task.text=[text]", "task.label=label"),
    *("task.metrics=[accuracy]", "training.epochs=2", "scheduler.warmup=1", "scheduler.cooldown=1"),
    *("scheduler.frequency=1", "dense.overrides=['training.epochs=1']"),
)
Train = Callable[..., Any]


def swapped(text: str) -> str:
    """The same csv with its two classes exchanged."""
    return text.replace(",0\n", ",x\n").replace(",1\n", ",0\n").replace(",x\n", ",1\n")


def rewrite(path: Path, text: str) -> None:
    """Write other contents of the same size with the old times, as a version control system might."""
    times = path.stat()
    path.write_text(text)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_finished_run_of_other_data_is_not_found(train: Train, workplace: Path) -> None:
    data = workplace / "train.csv"
    data.write_text(CSV)
    assert train(*FILE).code == 0
    (sparse,), (dense,) = run_folders(workplace / "outputs", "4x1"), run_folders(workplace / "outputs", "dense")
    inputs = report_of(sparse)["inputs"]
    assert inputs == report_of(dense)["inputs"] == {"task.path=train.csv": file_digest(data)}
    assert "Finished already" in train(*FILE).out
    rewrite(data, swapped(CSV))
    changed = train(*FILE)
    assert changed.code == 2
    assert changed.err.count("\n") == 1
    assert "task.path=train.csv: its contents are not those" in changed.err
    assert str(sparse.relative_to(workplace)) in changed.err
    # The dense run that the sparse one starts from was trained on the old data, too.
    shutil.rmtree(sparse)
    changed = train(*FILE)
    assert changed.code == 2
    assert str(dense.relative_to(workplace)) in changed.err
    assert train(*FILE, "plan=true").code == 2
    # Another place is another run, and the old contents find the old one.
    assert train(*FILE, "run.root=others").code == 0
    rewrite(data, CSV)
    assert train(*FILE).code == 0


def test_runs_are_found_where_the_data_is_gone(train: Train, workplace: Path) -> None:
    (workplace / "train.csv").write_text(CSV)
    assert train(*FILE).code == 0
    (workplace / "train.csv").unlink()
    assert "Finished already" in train(*FILE).out


def test_an_interrupted_run_does_not_go_on_with_other_data(
    train: Train, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "train.csv").write_text(CSV)
    words = (*FILE, "training.checkpoint_every=1", "pattern=dense")
    words = tuple(word for word in words if not word.startswith(("scheduler.", "dense.")))
    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_model", interrupt)
        assert train(*words).code == 130
    rewrite(workplace / "train.csv", swapped(CSV))
    refused = train(*words)
    assert refused.code == 2, refused.err
    assert "its contents are not those" in refused.err
    rewrite(workplace / "train.csv", CSV)
    assert "Resuming" in train(*words).out


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_failed_run_without_a_checkpoint_starts_anew(
    train: Train, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "train.csv").write_text(CSV)
    words = (*(word for word in FILE if not word.startswith(("scheduler.", "dense."))), "pattern=dense")
    with monkeypatch.context() as patch:
        patch.setattr(runs.setup, "prepare", interrupt)
        assert train(*words).code == 130
    (workplace / "train.csv").write_text(swapped(CSV))
    assert train(*words).code == 0


@pytest.mark.parametrize("key", ["model.path", "dense.source", "distill.teacher"])
def test_weights_that_were_replaced_are_found(key: str, train: Train, workplace: Path, small: tuple[str, ...]) -> None:
    for name in ("one", "two"):
        save_checkpoint(workplace / name, "bert", id2label={0: "negative", 1: "positive"})
    words = [word for word in small if not word.startswith("model=")]
    words = ["model=bert_mini", "model.path=one", *words, "recipe.lr=1e-3", "scheduler.warmup=5"]
    words += {"model.path": [], "dense.source": ["dense.source=two"], "distill.teacher": ["distill.teacher=two"]}[key]
    assert train(*words).code == 0
    folder = "one" if key == "model.path" else "two"
    config = json.loads((workplace / folder / "config.json").read_text())
    for name in ("README.md", "trainer_state.json", "training_args.bin", "notes.txt"):
        (workplace / folder / name).write_text("no part of the model")
    assert train(*words).code == 0
    (workplace / folder / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.5}))
    refused = train(*words)
    assert refused.code == 2
    assert f"{key}={folder}: its contents are not those" in refused.err


def test_a_run_without_digests_is_found(train: Train, workplace: Path) -> None:
    """As the version before wrote it."""
    (workplace / "train.csv").write_text(CSV)
    assert train(*FILE).code == 0
    for folder in (*run_folders(workplace / "outputs", "4x1"), *run_folders(workplace / "outputs", "dense")):
        report = {key: value for key, value in report_of(folder).items() if key != "inputs"}
        (folder / "report.json").write_text(json.dumps(report))
    (workplace / "train.csv").write_text(swapped(CSV))
    assert "Finished already" in train(*FILE).out


def test_a_dense_run_of_other_labels_is_refused(train: Train, workplace: Path) -> None:
    (workplace / "train.csv").write_text(CSV)
    assert train(*FILE).code == 0
    (dense,), (sparse,) = run_folders(workplace / "outputs", "dense"), run_folders(workplace / "outputs", "4x1")
    shutil.rmtree(sparse)
    config = json.loads((dense / "model" / "config.json").read_text())
    config |= {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    (dense / "model" / "config.json").write_text(json.dumps(config))
    refused = train(*FILE)
    assert refused.code == 2
    assert "holds a dense run for the labels a, b, and the task has 0, 1" in refused.err


def test_a_model_that_was_changed_is_neither_used_nor_reported(train: Train, workplace: Path) -> None:
    (workplace / "train.csv").write_text(CSV)
    assert train(*FILE).code == 0
    for kind, words in (("4x1", FILE), ("dense", (*FILE, "pattern=2:4"))):
        (folder,) = run_folders(workplace / "outputs", kind)
        file = folder / "model" / "model.safetensors"
        weights = load_file(file)
        (folder / "model" / "README.md").write_text("a card is no part of the model")
        save_file({name: weight * 1.05 for name, weight in weights.items()}, file, metadata={"format": "pt"})
        refused = train(*words)
        assert refused.code == 2, refused.err
        assert f"{folder.relative_to(workplace)}/model are not those that the run saved" in refused.err
        save_file(weights, file, metadata={"format": "pt"})
        assert train(*words).code == 0


SPLITS = "text\tlabel\n" + "".join(f"a text {i}\t{i % 2}\n" for i in range(40))


@pytest.mark.parametrize("change", ["train.tsv", "README.md"])
def test_a_folder_of_data_that_changed_is_found(change: str, train: Train, workplace: Path) -> None:
    data = workplace / "data"
    data.mkdir()
    splits = "".join(f"  - split: {name}\n    path: {name}.tsv\n" for name in ("train", "validation"))
    (data / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n")
    for name in ("train", "validation"):
        (data / f"{name}.tsv").write_text(SPLITS)
    words = [
        *("model=tiny", "task=sst2", "task.path=data", "task.subset=null", "task.text=[text]", "pattern=dense"),
        *("task.max_length=16", "training.epochs=1"),
    ]
    assert train(*words).code == 0
    assert "Finished already" in train(*words).out
    changed = swapped(SPLITS.replace("\t", ",")).replace(",", "\t") if change == "train.tsv" else "---\n---\n"
    (data / change).write_text(changed)
    refused = train(*words)
    assert refused.code == 2, refused.err
    assert "task.path=data: its contents are not those" in refused.err


def test_digests_of_folders_are_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "b.json").write_text("2")
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    whole = folder_digest(files, tmp_path)
    assert folder_digest(files[::-1], tmp_path) == whole
    (tmp_path / "a.json").write_text("2")
    (tmp_path / "b.json").write_text("1")
    assert folder_digest(files, tmp_path) != whole
    assert folder_digest(files[:1], tmp_path) != folder_digest(files[1:], tmp_path)
