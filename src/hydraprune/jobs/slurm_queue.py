"""SLURM's programs, called, and what they print read; and the record of what was submitted."""

from __future__ import annotations

import json
import logging
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hydraprune.errors import UserError, single_line
from hydraprune.utils.files import write_text

log = logging.getLogger(__name__)

# Seconds that a program may take: a busy controller answers slowly.
_PATIENCE = 120.0
# Tasks of one array, where the site does not say: SLURM's own default of MaxArraySize is 1001.
_LARGEST = 1000


# What a submission is recorded in.
RECORD = "submission.json"


@dataclass(frozen=True)
class Array:
    """A job array of a submission.

    Args:
        id: SLURM's number of the array.
        first: position, in the submission, of its first job.
        count: of its jobs; their indices begin with 1.
    """

    id: str
    first: int
    count: int


def write_record(place: Path, arrays: Sequence[Array], jobs: Sequence[str]) -> None:
    """Record the arrays that were submitted from a folder, and the jobs of the whole submission in their order."""
    values = {"arrays": [asdict(array) for array in arrays], "jobs": list(jobs)}
    write_text(place / RECORD, json.dumps(values, indent=1) + "\n")


def queued(folder: Path) -> dict[str, str]:
    """Job -> array, for jobs of earlier submissions that have not ended.

    Args:
        folder: that holds the folders of submissions.
    """
    submissions: list[tuple[list[Array], list[str]]] = []
    for record in sorted(folder.glob(f"*/{RECORD}")):
        try:
            values = json.loads(record.read_text(encoding="utf-8"))
            submissions.append(([Array(**array) for array in values["arrays"]], list(values["jobs"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"cannot be read ({single_line(error)})",
                key=str(record),
                cure="remove it, if squeue shows none of its jobs",
            ) from None
    arrays = {array.id: (array, jobs) for found, jobs in submissions for array in found}
    if not arrays:
        return {}
    return {
        arrays[identifier][1][arrays[identifier][0].first + index - 1]: identifier
        for identifier, index, _ in _tasks(arrays)
    }


def call(program: str, *words: str) -> str:
    """What a program of SLURM prints.

    Raises:
        UserError: it fails, with what it says.
    """
    try:
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=_PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{program} does not answer ({single_line(error)})", key="engine=slurm") from None
    if done.returncode:
        raise UserError(f"{program}: {single_line(done.stderr.strip() or done.stdout.strip())}", key="engine=slurm")
    return done.stdout


def largest_array() -> int:
    """How many tasks one array may have: indices run below the site's MaxArraySize."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(found[1]) - 1) if found else _LARGEST


def tasks_in_queue(arrays: Iterable[str]) -> bool:
    """Whether a task of some arrays has not ended; true where the controller does not answer, which is logged."""
    try:
        return bool(_tasks(arrays))
    except UserError as error:
        log.warning("%s; it is asked again", error.reason)
        return True


def _tasks(arrays: Iterable[str]) -> list[tuple[str, int, str]]:
    """(array, index, state) of the tasks of some arrays that have not ended.

    Raises:
        UserError: the controller does not answer.
    """
    wanted = set(arrays)
    printed = call("squeue", "--noheader", "--array", "--me", "--format=%F|%K|%T")
    rows = (line.strip().split("|") for line in printed.splitlines() if line.count("|") == 2)
    return [(array, int(index), state) for array, index, state in rows if array in wanted and index.isdecimal()]
