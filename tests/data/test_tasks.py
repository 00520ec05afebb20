"""Built-in tasks: data from folders and files, labels, subsets and validation shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compose_helpers import composing
from data_helpers import file_task

from hydraprune.config import instantiate
from hydraprune.config.composition import resolved
from hydraprune.data.task_checks import check_task
from hydraprune.data.tasks import HubTask
from hydraprune.errors import UserError, typed
from hydraprune.runs import setup

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
    with composing() as compose:
        config = resolved(compose(f"task={name}", f"task.path={folder}", "pattern=dense"))
    task = instantiate.make(config, "task")
    data = task.load()
    assert data.labels.count == labels
    assert data.labels.regression == (labels == 1)
    assert list(data.evaluations) == evaluations
    assert data.train.texts[1] == tuple(f"{column} 1" for column in columns)
    assert data.train.labels[1] == (1 if labels > 1 else pytest.approx(1 / 3))
    scores = setup.scorer(task.metrics)(list(data.train.labels), list(data.train.labels))
    assert scores == pytest.approx(dict.fromkeys(task.metrics, 1.0))


def pairs_task(name: str, folder: Path, size: int | None = None) -> HubTask:
    columns = ["sentence1", "sentence2"]
    return HubTask(name, str(folder), columns, "label", ["a", "b"], ["f1"], "train", ["validation"], 64, size, name)


def test_mrpc_has_the_published_sizes(glue: Path) -> None:
    data = pairs_task("mrpc", glue).load()
    assert (len(data.train), len(data.evaluations["validation"])) == (3668, 408)
    assert sum(data.evaluations["validation"].labels) == 279  # 68.4 % are paraphrases


def test_folders_with_the_same_name_are_not_confused(tmp_path: Path) -> None:
    """`datasets` caches a folder by its last name; the second must not get the rows of the first."""
    import datasets

    found = []
    for parent, rows in (("one", 12), ("two", 1)):
        (tmp_path / parent / "glue").mkdir(parents=True)
        folder = folder_of(tmp_path / parent / "glue", "rte", ["sentence1", "sentence2"], 2, ["validation"])
        columns = {"sentence1": ["a"] * rows, "sentence2": ["b"] * rows, "label": [1] * rows}
        datasets.Dataset.from_dict(columns).to_parquet(folder / "rte" / "train-00000-of-00001.parquet")
        found.append(len(pairs_task("rte", folder).load().train))
    assert found == [12, 1]


def test_a_subset_does_not_depend_on_the_run(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "rte", ["sentence1", "sentence2"], 2, ["validation"])
    first, again, every = (pairs_task("rte", folder, size).load() for size in (5, 5, 99))
    assert first.train.texts == again.train.texts
    assert (len(first.train), len(every.train), len(first.evaluations["validation"])) == (5, 12, 12)


def test_a_folder_made_by_save_to_disk_is_read(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    datasets.DatasetDict({"train": rows, "dev": rows}).save_to_disk(tmp_path / "saved")
    path = str(tmp_path / "saved")
    task = HubTask("mine", path, ["text"], "label", ["no", "yes"], ["accuracy"], "train", ["dev"], 64)
    assert task.load().evaluations["dev"].labels == [0, 1]
    with pytest.raises(UserError, match=r"no split validation; it has train, dev"):
        HubTask("mine", path, ["text"], "label", ["no", "yes"], ["accuracy"], "train", ["validation"], 64).load()


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_files_of_every_format_are_read(kind: str, tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(8)], "label": ["spam", "ham"] * 4})
    path = tmp_path / f"mine.{kind}"
    {"csv": rows.to_csv, "json": rows.to_json, "jsonl": rows.to_json, "parquet": rows.to_parquet}[kind](path)
    data = file_task(path).load()
    assert data.labels.names == ("ham", "spam")
    assert (len(data.train), len(data.evaluations["validation"])) == (6, 2)
    assert not set(data.train.texts) & set(data.evaluations["validation"].texts)
    assert file_task(path).load().train.texts == data.train.texts
    both = file_task(path, validation_path=str(path)).load()
    assert (len(both.train), len(both.evaluations["validation"])) == (8, 8)
    assert both.train.labels == [1, 0] * 4


def test_numeric_labels_are_named_by_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{i % 3}\n" for i in range(9)))
    assert file_task(path).load().labels.names == ("0", "1", "2")


def test_a_missing_file_or_unknown_format_is_refused(tmp_path: Path) -> None:
    for name, expected in (("mine.xls", "must end in"), ("missing.csv", "no such file")):
        with pytest.raises(UserError, match=expected):
            file_task(tmp_path / name).load()


@pytest.mark.parametrize(("share", "sizes"), [(0.25, (9, 3)), (0.1, (11, 1)), (0.5, (6, 6)), (0.9, (1, 11))])
def test_a_share_of_the_training_split_is_used_for_evaluation(
    share: float, sizes: tuple[int, int], tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, "rte", ["sentence1", "sentence2"], 2, ["validation"])
    # A validation split with other rows, none of which may be read.
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
    # Independent of a run's seed: loading again gives the same.
    assert again.train == first.train
    assert again.evaluations == first.evaluations
    assert whole.evaluations["validation"].texts == [("v", "v")] * 2

    few = replace(task, validation_share=share, max_train_examples=1).load()
    assert len(few.train) == 1
    assert few.evaluations == first.evaluations
    assert not set(few.train.texts) & set(apart.texts)


@pytest.mark.parametrize("share", [0, 1, 0.0, 1.0, -0.5, 1.5, True, False, "0.5", float("nan")])
def test_a_share_must_be_between_0_and_1(share: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"task.validation_share={typed(share)}: must be between 0 and 1, or null"):
        replace(pairs_task("rte", tmp_path), validation_share=share)


@pytest.mark.parametrize("share", [0.9999, 0.0001])
def test_a_share_must_leave_examples_on_both_sides(share: float, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "rte", ["sentence1", "sentence2"], 2, ["validation"])
    with pytest.raises(UserError, match=rf"task.validation_share={share}: leaves (0|12) of 12 examples to train on"):
        replace(pairs_task("rte", folder), validation_share=share).load()


UNKNOWN_METRICS: list[tuple[dict[str, Any], str]] = [
    (
        {"metrics": ["precision"]},
        r"task.metrics=precision: is a metric of tags, and the task has classes; choose from accuracy, f1, ",
    ),
    ({"metrics": [5]}, r"task.metrics=5: no such metric"),
    ({"metrics": ["pearson"]}, r"task.metrics=pearson: is a metric of scores, and the task has classes; choose from"),
    ({"metrics": ["f1"], "regression": True}, r"task.metrics=f1: is a metric of classes, and the task has scores"),
    ({"metrics": []}, r"task.metrics=\[\]: .*at least one"),
]


@pytest.mark.parametrize(("keys", "expected"), UNKNOWN_METRICS, ids=lambda value: str(value)[:40])
def test_an_unknown_metric_is_refused(keys: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected):
        file_task(tmp_path / "a.csv", **keys)


class IncompleteTask:
    name = "mine"
    metrics = ("accuracy",)

    def load(self) -> None: ...


def test_a_task_class_without_the_whole_interface_is_refused() -> None:
    task = IncompleteTask()
    with pytest.raises(UserError, match=r"task._target_=.*IncompleteTask: .*has no max_length"):
        check_task(task)
    task.max_length = 2  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"task\.max_length=2: must be at least 3 tokens"):
        check_task(task)
    task.max_length = 64  # type: ignore[attr-defined]
    check_task(task)
    task.metrics = ()
    with pytest.raises(UserError, match=r"task\.metrics"):
        check_task(task)
