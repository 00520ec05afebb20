"""The SLURM batch script of docs/stopping.md, with stand-ins for srun and scontrol."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "stopping.md"


@pytest.mark.parametrize(("code", "requeued"), [(75, ["requeue 4711"]), (0, []), (2, []), (130, [])])
def test_the_batch_script_requeues_a_stopped_job(code: int, requeued: list[str], tmp_path: Path) -> None:
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert "#SBATCH --signal=USR1@" in script
    for name, body in (("srun", f'[ "$1 $2" = "python train.py" ] && exit {code}'), ("scontrol", 'echo "$@" >> asked')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "asked").touch()
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711"}
    done = subprocess.run(["bash", "-c", script], env=environ, cwd=tmp_path, check=False)
    assert done.returncode == code
    assert (tmp_path / "asked").read_text().splitlines() == requeued
