"""`engine=slurm`: jobs as tasks of SLURM job arrays, by the commands of SLURM and nothing else.

https://slurm.schedmd.com/job_array.html
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from hydraprune.errors import INTERRUPTED, MISTAKE, UserError
from hydraprune.jobs.base import JobCommand, check_counts
from hydraprune.jobs.slurm_queue import RECORD, Array, call, largest_array, queued, tasks_in_queue, write_record
from hydraprune.utils import signals
from hydraprune.utils.files import write_text
from hydraprune.utils.redaction import redacted
from hydraprune.utils.signals import REQUEUE

# Subfolder of a sweep's for scripts, commands and logs; one folder for each submission.
FOLDER = "slurm"
# Options of sbatch that are ours.
_OURS = (
    "ntasks",
    "array",
    "chdir",
    "dependency",
    "error",
    "open-mode",
    "output",
    "requeue",
    "no-requeue",
    "wait",
    "wrap",
)


@dataclass(frozen=True)
class Slurm:
    """Job arrays of SLURM, split where the site allows no larger one.

    SLURM tells a job of its end two minutes before; it stops with a checkpoint, and is requeued. The cluster's machines
    share a file system with this one.

    Args:
        at_once: tasks of the sweep that run at a time; None: as many as SLURM starts.
        retries: how often a job that failed is started again, in its task.
        stop_at_first_failure: whether tasks that wait are cancelled when one has failed.
        submit: whether to leave once the jobs are submitted. Otherwise this process waits for them; if it is stopped,
            the jobs go on.
        partition, account, qos, constraint, time, gpus, cpus_per_task, mem: of sbatch. A time is a text, `4:00:00`.
        options: more options of sbatch: name -> value, true for one without a value.
        poll: seconds between two looks at the queue.
    """

    at_once: int | None = None
    retries: int = 0
    stop_at_first_failure: bool = False
    submit: bool = False
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: str | None = None
    gpus: int | str | None = None
    cpus_per_task: int | None = None
    mem: int | str | None = None
    options: Mapping[str, int | str | bool] = field(default_factory=dict)
    poll: float = 5.0

    elsewhere = True

    @property
    def leaves(self) -> bool:
        return self.submit

    @property
    def workers(self) -> int | None:
        return self.at_once

    def check(self) -> None:
        check_counts(self.at_once, self.retries)
        if isinstance(self.time, int):
            raise UserError(
                "is a number: YAML reads 4:00:00 without quotes as seconds, and SLURM reads minutes",
                key="engine.time",
                value=self.time,
                cure="write hours:minutes:seconds, in quotes in a file",
            )
        for name, value in self.options.items():
            if name.lstrip("-").replace("_", "-") in _OURS:
                raise UserError("is ours to set", key=f"engine.options.{name}", value=value, cure="leave it out")
            if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
                raise UserError("is no long option of sbatch", key=f"engine.options.{name}", value=value)
        for name, value in [*((key, getattr(self, key)) for key in _NAMED), *self.options.items()]:
            if not str(value).isprintable():
                raise UserError("must be one line of text", key=f"engine.{name}", value=value)
        if self.poll <= 0:
            raise UserError("must be above 0", key="engine.poll", value=self.poll)
        for program in ("sbatch", "squeue", "scontrol"):
            if shutil.which(program) is None:
                cure = "log in to a machine of the cluster, or leave engine=slurm out"
                raise UserError(f"{program} is not found: this is no SLURM machine", key="engine=slurm", cure=cure)

    def opened(self) -> AbstractContextManager[object]:
        return nullcontext()

    def run(self, commands: Sequence[JobCommand], folder: Path) -> None:
        for command in commands:
            if redacted(list(command.words)) != list(command.words):
                raise UserError(
                    "a secret on the command line would be written into SLURM's files",
                    key="engine=slurm",
                    cure="put it into an environment variable, and write ${oc.env:NAME}",
                )
        others = queued(folder / FOLDER)
        own = {command.log.name for command in commands}
        before = {log: array for log, array in others.items() if log in own}
        arrays = self._submit(commands, folder / FOLDER, before, sorted(set(others.values())))
        count = len(commands) - sum(command.log.name in before for command in commands)
        if count:
            print(f"{count} jobs are submitted to SLURM: {' '.join(arrays)}")
        if before:
            print(f"{len(before)} jobs are in its queue from before: {' '.join(sorted(set(before.values())))}")
        print(f"To follow them: hydraprune watch {folder}", flush=True)
        if self.submit:
            return
        waited = list(dict.fromkeys([*arrays, *before.values()]))
        while tasks_in_queue(waited) and not signals.is_stopping():
            self._rest()
        if signals.is_stopping():
            print(f"The jobs go on in SLURM; to end them: scancel {' '.join(waited)}", flush=True)

    def _rest(self) -> None:
        until = time.monotonic() + self.poll
        while time.monotonic() < until and not signals.is_stopping():
            time.sleep(0.2)

    def _submit(
        self, commands: Sequence[JobCommand], folder: Path, before: Mapping[str, str], waiting: Sequence[str]
    ) -> list[str]:
        """Submit the commands that are not in the queue.

        Args:
            before: log -> array of those that are.
            waiting: arrays of the sweep that are in the queue.

        Returns:
            The numbers of the arrays.
        """
        new = [number for number, command in enumerate(commands) if command.log.name not in before]
        if not new:
            return []
        needed = {command.needs for command in commands}
        groups = [
            [number for number in new if number in needed],
            [number for number in new if number not in needed and commands[number].needs is None],
            [number for number in new if commands[number].needs is not None],
        ]
        order = [number for group in groups for number in group]
        place = _new_folder(folder)
        for log in {command.log.parent for command in commands}:
            log.mkdir(parents=True, exist_ok=True)
        write_text(place / "commands.txt", "".join(f"{commands[number].line}\n" for number in order))
        arrays: list[Array] = []
        of_needed = sorted({before[commands[n].log.name] for n in needed if n is not None and n not in new})
        largest, first = largest_array(), 0
        for kind, group in enumerate(groups):
            for start in range(0, len(group), largest):
                count = min(largest, len(group) - start)
                script = place / f"batch-{len(arrays) + 1}.sh"
                job = commands[order[first]]
                write_text(script, self._script(place, first, count, job.folder, job.processes))
                after = list(of_needed) if kind == 2 else []
                # Where only so many run at a time, the limit of one array would not hold for two.
                if self.at_once is not None:
                    after += [arrays[-1].id] if arrays else waiting
                dependency = [f"--dependency=afterany:{':'.join(after)}"] if after else []
                identifier = call("sbatch", "--parsable", *dependency, str(script)).strip().partition(";")[0]
                arrays.append(Array(identifier, first, count))
                of_needed += [identifier] if kind == 0 else []
                write_record(place, arrays, [commands[number].log.name for number in order])
                first += count
        return [array.id for array in arrays]

    def _script(self, place: Path, first: int, count: int, folder: Path, processes: int) -> str:
        """The batch script of one array.

        Args:
            first: how many commands of the file belong to other arrays.
            count: of tasks.
            folder: the current folder of the jobs.
            processes: of each job.
        """
        limit = "" if self.at_once is None else f"%{self.at_once}"
        options: dict[str, object] = {
            "job-name": "hydraprune",
            "signal": "USR1@120",
            **{key.replace("_", "-"): getattr(self, key) for key in _NAMED},
            **{name.lstrip("-").replace("_", "-"): value for name, value in self.options.items()},
            "array": f"1-{count}{limit}",
            "chdir": folder,
            "output": f"{str(place).replace('%', '%%')}/%A-%a.log",
            "open-mode": "append",
            "requeue": True,
            "ntasks": processes if processes > 1 else None,
        }
        given = {name: value for name, value in options.items() if value not in (None, False)}
        lines = [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]
        headers = "\n".join(f"#SBATCH {shlex.quote(line)}" for line in lines)
        record = shlex.quote(str(place / RECORD))
        # All arrays of the submission, from its record.
        stop = f'scancel --state=PENDING $(sed -n \'s/.*"id": "\\([0-9]*\\)".*/\\1/p\' {record})'
        return _SCRIPT.format(
            headers=headers,
            first=first,
            commands=shlex.quote(str(place / "commands.txt")),
            tries=self.retries + 1,
            processes=processes,
            mistake=MISTAKE,
            interrupted=INTERRUPTED,
            requeue=REQUEUE,
            stop=stop if self.stop_at_first_failure else ":",
        )


_NAMED = ("partition", "account", "qos", "constraint", "time", "gpus", "cpus_per_task", "mem")

_SCRIPT = """\
#!/bin/bash
{headers}
command=$(sed -n "$((SLURM_ARRAY_TASK_ID + {first}))p" {commands})
for try in $(seq {tries}); do
  # As a step: SLURM's signals reach steps, and not this script.
  srun --ntasks={processes} bash -c "exec $command"
  code=$?
  case $code in
    0 | {mistake} | {interrupted}) break ;;
    {requeue}) scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"; exit {requeue} ;;
  esac
done
if [ $code -ne 0 ]; then {stop}; fi
exit $code
"""


def _new_folder(folder: Path) -> Path:
    """A new folder for a submission, named by the time."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(os.path.abspath(tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%d_%H-%M-%S_"), dir=folder)))
    place.chmod(0o755)  # as other folders: whoever reads the sweep may read its scripts
    return place
