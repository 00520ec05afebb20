"""How this process was started: alone, or as one of several by torchrun, accelerate launch, srun or mpirun."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydraprune.errors import UserError

# Of each starter the variables that hold the number of processes, this one's number, and its number on this machine. In
# the order in which they are looked for: those of torchrun are set for each process, srun's also by a step around it.
_VARIABLES = (
    ("torchrun", "WORLD_SIZE", "RANK", "LOCAL_RANK"),
    ("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("mpirun", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
    ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    ("mpirun", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
)
# What one job of a starter has and another has not; for a port of its own.
_NAMES = ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_ID")
# Parts of `accelerate launch` that shard a model or train it in another way.
_OTHER_WAYS = {
    "ACCELERATE_USE_FSDP": "--use_fsdp",
    "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed",
    "ACCELERATE_USE_MEGATRON_LM": "--use_megatron_lm",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "--use_parallelism_config",
}
_FIRST_PORT, _PORTS = 20_000, 10_000


@dataclass(frozen=True)
class ProcessStart:
    """One of the processes of a run.

    Args:
        starter: the program that started it, for messages; empty if it runs alone.
        rank: its number, from 0.
        count: of the processes.
        local_rank: its number among those of this machine.
    """

    starter: str = ""
    rank: int = 0
    count: int = 1
    local_rank: int = 0

    def export(self, environment: dict[str, str]) -> None:
        """Set the variables that `torch.distributed` and accelerate read.

        Raises:
            UserError: the machine of the first process is not known.
        """
        environment.update(WORLD_SIZE=str(self.count), RANK=str(self.rank), LOCAL_RANK=str(self.local_rank))
        if self.starter == "torchrun":
            return
        if "MASTER_ADDR" not in environment:
            environment["MASTER_ADDR"] = _first_machine(self.starter, environment, self.count)
        if "MASTER_PORT" not in environment:
            own = [environment[name] for name in _NAMES if name in environment] or [str(os.getppid())]
            environment["MASTER_PORT"] = str(_FIRST_PORT + zlib.crc32(" ".join(own).encode()) % _PORTS)


def process_start(environment: Mapping[str, str]) -> ProcessStart:
    """How the process with these environment variables was started.

    Raises:
        UserError: a variable is no number, or the starter was asked for what a run does not support.
    """
    for name, option in _OTHER_WAYS.items():
        if environment.get(name, "").lower() in ("1", "true", "yes"):
            raise UserError(
                "a run trains whole copies of its model", key=f"accelerate launch {option}", cure="leave it out"
            )
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no":
        raise UserError(
            "precision is part of a run's config",
            key=f"accelerate launch --mixed_precision {precision}",
            cure="use training.precision=bf16 instead",
        )
    for starter, *names in _VARIABLES:
        count = _number(environment, names[0], 1)
        if count > 1:
            rank = _number(environment, names[1], None)
            return ProcessStart(starter, rank, count, _number(environment, names[2], rank))
    return ProcessStart()


def is_follower(environment: Mapping[str, str]) -> bool:
    """Whether this is not the first of several processes of a run; that one says what there is to say."""
    try:
        return process_start(environment).rank > 0
    except UserError:
        return False


def is_lost_connection(error: BaseException) -> bool:
    """Whether another process of the run has ended: an error of torch.distributed."""
    return any(text in str(error) for text in ("onnection closed by peer", "onnection reset by peer", "Read error"))


def lost_processes(command: Sequence[str]) -> UserError | None:
    """The error for `accelerate launch` that was asked for several processes and started one, as it does on CPUs.

    It says so in no variable.

    Args:
        command: the command line of the process that started this one.
    """
    words = " ".join(command)
    asked = re.search(r"--num[_-]processes[ =](\d+)", words)
    if "accelerate" not in words or "launch" not in words or asked is None or int(asked[1]) < 2:
        return None
    return UserError(
        "starts one process only where it sees no GPU",
        key=f"accelerate launch --num_processes {asked[1]}",
        cure=f"start with torchrun --nproc-per-node {asked[1]}",
    )


def _number(environment: Mapping[str, str], name: str, default: int | None) -> int:
    text = environment.get(name) or ("" if default is None else str(default))
    if not text.isdecimal():
        reason = "must be a number of processes" if default == 1 else "must be the number of this process"
        raise UserError(reason, key=name, value=text or None, cure="unset it, or start with torchrun")
    return int(text)


def _first_machine(starter: str, environment: Mapping[str, str], count: int) -> str:
    """The machine of the first process, where it is this one or SLURM names it."""
    nodes = environment.get("SLURM_STEP_NUM_NODES") if starter == "srun" else None
    local = environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") or environment.get("MPI_LOCALNRANKS")
    if nodes == "1" or local == str(count):
        return "127.0.0.1"
    listed = environment.get("SLURM_STEP_NODELIST", "")
    if starter == "srun" and listed and "[" not in listed:
        return listed.partition(",")[0]
    if starter == "srun" and listed:
        # node[3-5,8]: the first of them.
        head, _, rest = listed.partition("[")
        return head + rest.partition("]")[0].partition(",")[0].partition("-")[0]
    raise UserError(
        "the machine of the first process is not known",
        key="MASTER_ADDR",
        cure=f"set it to its name before {starter}, as in MASTER_ADDR=node1",
    )
