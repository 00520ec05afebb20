"""How processes were started, by the variables that their starters set."""

from __future__ import annotations

from typing import Any

import pytest

from hydraprune.errors import UserError
from hydraprune.utils.process_start import ProcessStart, lost_processes, process_start

MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
SRUN = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "77"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ProcessStart()),
        ({"WORLD_SIZE": ""}, ProcessStart()),
        ({"WORLD_SIZE": "1", "RANK": "0"}, ProcessStart()),
        ({"WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "1"}, ProcessStart("torchrun", 2, 3, 1)),
        (MPI, ProcessStart("mpirun", 3, 4, 1)),
        ({"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "1"}, ProcessStart("mpirun", 1, 2, 1)),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, ProcessStart("mpirun", 0, 2, 0)),
        (SRUN, ProcessStart("srun", 1, 2, 0)),
        # A batch script with two tasks that starts one program.
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, ProcessStart()),
        # torchrun in a step of srun.
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1", "WORLD_SIZE": "2", "RANK": "1"}, ProcessStart("torchrun", 1, 2, 1)),
    ],
)
def test_starts(variables: dict[str, str], expected: ProcessStart) -> None:
    assert process_start(variables) == expected


def test_the_variables_of_torch_are_set() -> None:
    environment = {**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
    process_start(environment).export(environment)
    assert {name: environment[name] for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR")} == {
        "WORLD_SIZE": "4",
        "RANK": "3",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
    }
    assert 20_000 <= int(environment["MASTER_PORT"]) < 30_000
    for listed, first in (("n7", "n7"), ("n3,n4", "n3"), ("gpu[03-05,8]", "gpu03"), ("a[1,3]", "a1")):
        environment = {**SRUN, "SLURM_STEP_NODELIST": listed}
        process_start(environment).export(environment)
        assert environment["MASTER_ADDR"] == first
    # Another job on this machine has another port.
    other = {**SRUN, "SLURM_STEP_NUM_NODES": "1", "SLURM_JOB_ID": "78"}
    process_start(other).export(other)
    assert other["MASTER_PORT"] != environment["MASTER_PORT"]
    given = {**MPI, "MASTER_ADDR": "node9", "MASTER_PORT": "5"}
    process_start(given).export(given)
    assert (given["MASTER_ADDR"], given["MASTER_PORT"]) == ("node9", "5")


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE=abc: must be a number of processes"),
        ({"WORLD_SIZE": "2"}, "RANK=null: must be the number of this process"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK=-1: must be the number"),
        ({"ACCELERATE_USE_FSDP": "true"}, "accelerate launch --use_fsdp: a run trains whole copies"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "--use_deepspeed"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "--mixed_precision bf16: precision is part of a run's config"),
    ],
)
def test_what_is_not_supported_is_named_as_it_was_typed(variables: dict[str, str], error: str) -> None:
    with pytest.raises(UserError) as refused:
        process_start(variables)
    assert error in str(refused.value)


@pytest.mark.usefixtures("bad_input")
def test_a_first_machine_that_nobody_names_is_asked_for() -> None:
    with pytest.raises(UserError, match="MASTER_ADDR"):
        process_start(MPI).export(dict(MPI))


@pytest.mark.parametrize(
    ("command", "lost"),
    [
        ("python accelerate launch --cpu --num_processes 2 train.py", "2"),
        ("python accelerate launch --num-processes=4 train.py", "4"),
        ("python accelerate launch --num_processes 1 train.py", None),
        ("python accelerate launch train.py", None),
        ("bash run.sh --num_processes 2", None),
    ],
)
def test_accelerate_launch_that_starts_one_process_of_several(command: str, lost: Any) -> None:
    found = lost_processes(command.split())
    assert (found is None) == (lost is None)
    if found is not None:
        assert f"torchrun --nproc-per-node {lost}" in str(found)
