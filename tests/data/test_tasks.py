"""Data from folders and files, and what is made of labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from hydraprune.config import instantiate as assembly
from hydraprune.config.composition import conf_dir, resolved
from hydraprune.data.tasks import FileTask, HubTask
from hydraprune.errors import UserError
from hydraprune.runs import setup as building

# (task, text columns, labels, evaluation sets) as the GLUE benchmark has them on the hub
GLUE: list[tuple[str, list[str], int, list[str]]] = [
    ("cola", ["sentence"], 2, ["validation"]),
    ("sst2", ["sentence"], 2, ["validation"]),
    ("mrpc", ["sentence1", "sentence2"], 2, ["validation"]),
    ("qqp", ["question1", "question2"], 2, ["validation"]),
    ("stsb", ["sentence1", "sentence2"], 1, ["validation"]),
    ("mnli", ["premise", "hypothesis"], 3, ["validation_matched", "validation_mismatched"]),
    ("qnli", ["question", "sentence"], 2, ["validation"]),
    ("rte", ["sentence1", "sentence2"], 2, ["validation"]),
    ("wnli", ["sentence1", "sentence2"], 2, ["validation"]),
]


def folder_of(tmp_path: Path, name: str, columns: list[str], labels: int, evaluations: list[str]) -> Path:
    """A folder in the hub's layout with a few rows."""
    import datasets

    values = [i % labels if labels > 1 else i / 3 for i in range(12)]
    rows = datasets.Dataset.from_dict({**{c: [f"{c} {i}" for i in range(12)] for c in columns}, "label": values})
    splits = ["train", *evaluations]
    (tmp_path / name).mkdir()
    for split in splits:
        rows.to_parquet(tmp_path / name / f"{split}-00000-of-00001.parquet")
    lines = "".join(f"  - split: {split}\n    path: {name}/{split}-*\n" for split in splits)
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: {name}\n  data_files:\n{lines}---\n")
    return tmp_path


@pytest.mark.parametrize(("name", "columns", "labels", "evaluations"), GLUE)
def test_every_glue_task_reads_its_columns(
    name: str, columns: list[str], labels: int, evaluations: list[str], tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, name, columns, labels, evaluations)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = resolved(compose("config", [f"task={name}", f"task.path={folder}", "pattern=dense"]))
    task = assembly.make(config, "task")
    data = task.load()
    assert data.labels.count == labels
    assert data.labels.regression == (labels == 1)
    assert list(data.evaluations) == evaluations
    assert data.train.texts[1] == tuple(f"{column} 1" for column in columns)
    assert data.train.labels[1] == (1 if labels > 1 else pytest.approx(1 / 3))
    scores = building.scorer(task.metrics)(list(data.train.labels), list(data.train.labels))
    assert scores == pytest.approx(dict.fromkeys(task.metrics, 1.0))


def pairs_task(name: str, folder: Path, size: int | None = None) -> HubTask:
    columns = ["sentence1", "sentence2"]
    return HubTask(name, str(folder), columns, "label", ["a", "b"], ["f1"], "train", ["validation"], 64, size, name)


def test_real_glue(glue: Path) -> None:
    columns = ["sentence1", "sentence2"]
    data = HubTask(
        "mrpc", str(glue), columns, "label", ["a", "b"], ["f1"], "train", ["validation"], 64, None, "mrpc"
    ).load()
    assert (len(data.train), len(data.evaluations["validation"])) == (3668, 408)
    assert sum(data.evaluations["validation"].labels) == 279  # 68.4 % are paraphrases


def test_folders_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    """`datasets` caches a folder by its last name; the second one must not get the first one's rows."""
    import datasets

    found = []
    for place, rows in (("one", 12), ("two", 1)):
        (tmp_path / place / "glue").mkdir(parents=True)
        folder = folder_of(tmp_path / place / "glue", "rte", ["sentence1", "sentence2"], 2, ["validation"])
        columns = {"sentence1": ["a"] * rows, "sentence2": ["b"] * rows, "label": [1] * rows}
        datasets.Dataset.from_dict(columns).to_parquet(folder / "rte" / "train-00000-of-00001.parquet")
        found.append(len(pairs_task("rte", folder).load().train))
    assert found == [12, 1]


def test_a_subset_is_the_same_for_everybody(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "rte", ["sentence1", "sentence2"], 2, ["validation"])
    first, again, every = (pairs_task("rte", folder, size).load() for size in (5, 5, 99))
    assert first.train.texts == again.train.texts
    assert (len(first.train), len(every.train), len(first.evaluations["validation"])) == (5, 12, 12)


def test_a_folder_made_by_save_to_disk(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    datasets.DatasetDict({"train": rows, "dev": rows}).save_to_disk(tmp_path / "saved")
    path = str(tmp_path / "saved")
    task = HubTask("mine", path, ["text"], "label", ["no", "yes"], ["accuracy"], "train", ["dev"], 64)
    assert task.load().evaluations["dev"].labels == [0, 1]
    with pytest.raises(UserError, match=r"no split validation; it has train, dev"):
        HubTask("mine", path, ["text"], "label", ["no", "yes"], ["accuracy"], "train", ["validation"], 64).load()


def own(path: Path, **more: Any) -> FileTask:
    values: dict[str, Any] = {
        "name": "file", "path": str(path), "validation_path": None, "validation_share": 0.25, "text": ["text"],
        "label": "label", "labels": None, "regression": False, "metrics": ["accuracy"], "max_length": 64,
    }  # fmt: skip
    return FileTask(**{**values, **more})


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_files_of_ones_own(kind: str, tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(8)], "label": ["spam", "ham"] * 4})
    path = tmp_path / f"mine.{kind}"
    {"csv": rows.to_csv, "json": rows.to_json, "jsonl": rows.to_json, "parquet": rows.to_parquet}[kind](path)
    data = own(path).load()
    assert data.labels.names == ("ham", "spam")
    assert (len(data.train), len(data.evaluations["validation"])) == (6, 2)
    assert not set(data.train.texts) & set(data.evaluations["validation"].texts)
    assert own(path).load().train.texts == data.train.texts
    both = own(path, validation_path=str(path)).load()
    assert (len(both.train), len(both.evaluations["validation"])) == (8, 8)
    assert both.train.labels == [1, 0] * 4


def test_numbers_name_themselves(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{i % 3}\n" for i in range(9)))
    assert own(path).load().labels.names == ("0", "1", "2")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    for name, said in (("mine.xls", "must end in"), ("missing.csv", "no such file")):
        with pytest.raises(UserError, match=said):
            own(tmp_path / name).load()


@pytest.mark.parametrize(("share", "sizes"), [(0.25, (9, 3)), (0.1, (11, 1)), (0.5, (6, 6)), (0.9, (1, 11))])
def test_a_part_of_the_training_split_is_set_apart(share: float, sizes: tuple[int, int], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "rte", ["sentence1", "sentence2"], 2, ["validation"])
    # Another validation split: were one of its rows read, it would be seen.
    (folder / "rte" / "validation-00000-of-00001.parquet").unlink()
    import datasets

    other = datasets.Dataset.from_dict({"sentence1": ["v"] * 2, "sentence2": ["v"] * 2, "label": [0, 1]})
    other.to_parquet(folder / "rte" / "validation-00000-of-00001.parquet")
    task = pairs_task("rte", folder)
    whole, first, again = (t.load() for t in (task, *[replace(task, validation_share=share)] * 2))
    ((name, apart),) = first.evaluations.items()
    assert name == "train, set apart"
    assert (len(first.train), len(apart)) == sizes
    assert not set(first.train.texts) & set(apart.texts)
    assert {*first.train.texts, *apart.texts} == set(whole.train.texts)
    # Nothing of a run's seed goes in: what is loaded again is the same.
    assert again.train == first.train
    assert again.evaluations == first.evaluations
    assert whole.evaluations["validation"].texts == [("v", "v")] * 2

    few = replace(task, validation_share=share, max_train_examples=1).load()
    assert len(few.train) == 1
    assert few.evaluations == first.evaluations
    assert not set(few.train.texts) & set(apart.texts)


@pytest.mark.parametrize("share", [0, 1, 0.0, 1.0, -0.5, 1.5, True, False, "0.5", float("nan")])
def test_a_share_is_between_0_and_1(share: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"task.validation_share={share}: must be between 0 and 1, or null"):
        replace(pairs_task("rte", tmp_path), validation_share=share)


@pytest.mark.parametrize("share", [0.9999, 0.0001])
def test_a_share_leaves_something_on_both_sides(share: float, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "rte", ["sentence1", "sentence2"], 2, ["validation"])
    with pytest.raises(UserError, match=rf"task.validation_share={share}: leaves (0|12) of 12 examples to train on"):
        replace(pairs_task("rte", folder), validation_share=share).load()
