"""A real SLURM cluster of one node for tests: Debian's munge, slurmctld and slurmd, in a folder of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun", "scontrol")
_CONF = """\
ClusterName=test
SlurmctldHost={host}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=batch_sched_delay=0,sched_interval=2
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
MaxArraySize={largest}
KillWait=20
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        return "slurmd needs root"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    return f"not installed: {', '.join(absent)} (Debian: munge slurmctld slurmd slurm-client)" if absent else None


@contextmanager
def cluster(folder: Path, cpus: int = 2, largest: int = 1001) -> Iterator[Path]:
    """A running cluster; its slurm.conf is in the environment variable SLURM_CONF meanwhile.

    Args:
        folder: for its files.
        cpus: that its node has, whatever this machine has.
        largest: MaxArraySize.
    """
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    for name in ("spool", "state"):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().split(".")[0]
    ports = [_free_port() for _ in range(2)]
    conf = folder / "slurm.conf"
    conf.write_text(
        _CONF.format(
            host=host, folder=folder, user="root", controller=ports[0], daemon=ports[1], largest=largest, cpus=cpus
        )
    )
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    folder.chmod(0o755)
    words = ["--key-file", key, "--socket", folder / "munge.socket", "--pid-file", folder / "munge.pid"]
    words += ["--log-file", folder / "munge.log", "--seed-file", folder / "munge.seed", "--foreground", "--force"]
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(conf)
    daemons = []
    try:
        for command in (["munged", *map(str, words)], ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]):
            with open(folder / f"{command[0]}.out", "wb") as out:
                daemons.append(subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL))
            time.sleep(1)
        _wait_for_node(folder)
        yield conf
    finally:
        subprocess.run(["scancel", "--user", "root"], check=False, capture_output=True, timeout=30)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def _wait_for_node(folder: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        done = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False, timeout=30)
        if done.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(
        path.read_text(errors="replace")[-2000:] for path in (*folder.glob("*.log"), *folder.glob("*.out"))
    )
    raise RuntimeError(f"SLURM did not start:\n{logs}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
