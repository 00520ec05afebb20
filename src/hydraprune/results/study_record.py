"""The trials of a study: `study.json` in its folder, and their table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hydraprune.results.escaping import in_markdown, in_spreadsheet
from hydraprune.results.json_records import check_fields, damaged, read_record
from hydraprune.results.number_format import figure
from hydraprune.results.tables import aligned
from hydraprune.utils.files import write_text
from hydraprune.utils.redaction import redacted

SCHEMA = 1
NAME = "study.json"
TABLES = ("study.md", "study.csv")


@dataclass(frozen=True)
class Objective:
    """What a study optimizes.

    Args:
        name: `score`, `sparsity` or `latency`.
        label: for people: the metric's name, `sparsity`, or `latency (ms)`.
        direction: `maximize` or `minimize`.
    """

    name: str
    label: str
    direction: Literal["maximize", "minimize"]


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Args:
        number: from 0, in the order in which they were asked for.
        values: of the objectives, if it is complete.
        epochs: epoch -> score after it, as far as the study read them.
        words: its overrides.
        run, folder: hash of its run, and its folder relative to the sweep's.
        why: it failed.
        best: whether no other trial is better; with two objectives, whether it is on the Pareto front.
    """

    number: int
    state: str
    values: Sequence[float] | None
    epochs: Mapping[str, float]
    words: Sequence[str]
    run: str | None = None
    folder: str | None = None
    why: str | None = None
    best: bool = False


@dataclass(frozen=True)
class StudyRecord:
    """A study.

    Args:
        wanted: trials that it is to have.
        words: of every trial.
        searched: key -> its values, for people.
    """

    name: str
    wanted: int
    objectives: Sequence[Objective]
    words: Sequence[str]
    searched: Mapping[str, str]
    trials: Sequence[TrialRecord]
    schema: int = SCHEMA

    @property
    def best(self) -> list[TrialRecord]:
        """The best trial; with two objectives, the Pareto front, by the first one."""
        front = [trial for trial in self.trials if trial.best and trial.values]
        return sorted(front, key=lambda trial: list(trial.values or ()))

    def searched_words(self, trial: TrialRecord) -> list[str]:
        """The overrides in which a trial differs from others, in the order of `searched`."""
        return [f"{key}={value}" for key, value in zip(self.searched, self._values(trial), strict=True)]

    def _values(self, trial: TrialRecord) -> list[str]:
        """The value of every searched key, as typed."""
        # The last word about a key counts.
        typed = {word.partition("=")[0].lstrip("+"): word.partition("=")[2] for word in trial.words}
        return [typed.get(key.lstrip("+"), "") for key in self.searched]

    def markdown(self) -> str:
        """The trials as a Markdown table."""
        header = ["trial", "state", *(each.label for each in self.objectives), *self.searched]
        return aligned(header, [[in_markdown(cell) for cell in row] for row in self._rows()])

    def comma_separated(self) -> str:
        """The trials as CSV, with all digits."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["trial", "state", "best", *(each.label for each in self.objectives), *self.searched, "folder"])
        for trial in self.trials:
            values: Sequence[object] = trial.values or [""] * len(self.objectives)
            words = [in_spreadsheet(value) for value in self._values(trial)]
            rows.writerow([trial.number, trial.state, trial.best, *values, *words, trial.folder or ""])
        return text.getvalue()

    def _rows(self) -> list[list[str]]:
        rows = []
        for trial in self.trials:
            values = [figure(value) for value in trial.values or ()] or [figure(None)] * len(self.objectives)
            if trial.epochs and not trial.values:
                epoch, score = list(trial.epochs.items())[-1]
                values[0] = f"{figure(score)} after epoch {epoch}"
            rows.append([f"{trial.number}{' *' * trial.best}", trial.state, *values, *self._values(trial)])
        return rows


def write_study(record: StudyRecord, folder: Path) -> None:
    """Write `study.json`, `study.md` and `study.csv`, each atomically.

    Raises:
        OSError: the folder cannot be written.
    """
    write_text(folder / NAME, json.dumps(redacted(asdict(record)), indent=1, allow_nan=False) + "\n")
    for name, text in zip(TABLES, (record.markdown() + "\n", record.comma_separated()), strict=True):
        write_text(folder / name, text)


def load_study(folder: Path) -> StudyRecord | None:
    """The study in a sweep's folder; None if there is none.

    Raises:
        UserError: it is damaged: naming the file, and the value that no study has.
    """
    values = read_record(folder / NAME)
    if values is None:
        return None
    try:
        check_fields(values, StudyRecord, {"objectives": list[dict[str, Any]], "trials": list[dict[str, Any]]})
        for of_list, cls in (("objectives", Objective), ("trials", TrialRecord)):
            for entry in values[of_list]:
                check_fields(entry, cls, {})
        if not 1 <= len(values["objectives"]) <= 2:
            raise ValueError("objectives are one or two")
        count = len(values["objectives"])
        if any(entry.get("values") and len(entry["values"]) != count for entry in values["trials"]):
            raise ValueError("values are one for each objective")
    except ValueError as error:
        raise damaged(folder / NAME, str(error)) from None
    known = {key: values[key] for key in values if key in StudyRecord.__dataclass_fields__}
    return StudyRecord(
        **{
            **known,
            "objectives": tuple(_made(Objective, entry) for entry in values["objectives"]),
            "trials": tuple(_made(TrialRecord, entry) for entry in values["trials"]),
        }
    )


def _made(cls: Any, entry: Mapping[str, Any]) -> Any:
    return cls(**{key: entry[key] for key in entry if key in cls.__dataclass_fields__})
