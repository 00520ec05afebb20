"""Two machines at one sweep on shared storage, both played by this one: `python benchmarks/two_machines.py`.

Two processes run the same sweep at the same time, each in namespaces of its own for the network, mounts and the name of
the machine, with the shared folder mounted at another place and a cache of its own. Checked: every run was trained
once, both print the same table, and the table of both folders together has each run once. Needs Linux and root.

The file system is the local one, whose locks hold for all mounts: this says nothing of a network file system's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

WORDS = (
    *("-m", "model=tiny", "task=toy", "pattern=4x1,2of4,1xchannel", "seed=0,1", "runtime.threads=1", "engine=here"),
    *("task.train_examples=320", "task.evaluation_examples=64", "training.epochs=3", "dense.overrides=[]"),
    *("scheduler.warmup=5", "scheduler.cooldown=5", "sweep=shared"),
)


def machine(name: str, shared: Path, place: Path) -> subprocess.Popen[str]:
    """Start the sweep on one of them."""
    mount, cache = place / name / "storage", place / name / "cache"
    for folder in (mount, cache):
        folder.mkdir(parents=True)
    command = f'hostname {name}; mount --bind "{shared}" "{mount}"; cd "{mount}"; exec "$@"'
    apart = ["unshare", "--net", "--mount", "--uts", "bash", "-c", command, "bash"]
    return subprocess.Popen(
        [*apart, sys.executable, "-m", "hydraprune.cli", "train", *WORDS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HYDRAPRUNE_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
    )


def main() -> None:
    """Run both and look at what they left."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        shared = place / "shared"
        shared.mkdir()
        started = [machine(name, shared, place) for name in ("one", "two")]
        for process in started:
            out, err = process.communicate()
            print(f"exit code {process.returncode}: {out.count('done') + err.count('done')} runs shown as done")
            if process.returncode:
                print(err[-3000:])
        logs = sorted(shared.rglob("train.log"))
        # Each training says which dense model or weights it starts from.
        trained = {log.parent.relative_to(shared): log.read_text().count("train, ") for log in logs}
        for run, count in trained.items():
            print(f"{count}  {run}")
        words = [sys.executable, "-m", "hydraprune.cli", "report", "shared/multirun_sweeps", "shared/outputs"]
        merged = subprocess.run([*words, "--out", "both"], cwd=place, capture_output=True, text=True, check=True).stdout
        print(merged[: merged.index("##")])
        if any(process.returncode for process in started) or set(trained.values()) != {1}:
            raise SystemExit("not as one machine would have it")


if __name__ == "__main__":
    main()
