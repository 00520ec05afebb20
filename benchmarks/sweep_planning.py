"""Seconds to plan a sweep of 40 jobs (`plan=true`): `python benchmarks/sweep_planning.py --other CHECKOUT`.

This checkout and another one take turns, each in a new process with the same Python; processor time of the whole
process and of the same process without the planning (imports, and Hydra's start), medians over the pairs.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[1]
SWEEP = ("-m", "demo_matrix=glob(*)", "seed=range(10)", "plan=true")
ONE = ("-m", "demo_matrix=4x1", "seed=0", "plan=true")


def seconds(checkout: Path, words: tuple[str, ...], folder: str) -> float:
    """User and system seconds of planning a sweep in a new process."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, str(checkout / "train.py"), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", type=Path, metavar="CHECKOUT", help="another checkout, such as of an earlier commit")
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    sides = {"this": HERE, **({"other": arguments.other.resolve()} if arguments.other else {})}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.pairs):
            for name, checkout in sides.items():
                found[name].append((seconds(checkout, SWEEP, folder), seconds(checkout, ONE, folder)))
    print("| checkout | 40 jobs, s | 1 job, s | difference: 39 more jobs, s |\n|---|---:|---:|---:|")
    medians = {}
    for name, pairs in found.items():
        whole, one = (statistics.median(column) for column in zip(*pairs, strict=True))
        medians[name] = (whole, whole - one)
        print(f"| {name} | {whole:.2f} | {one:.2f} | {whole - one:.2f} |")
    if "other" in medians:
        ratios = [other / this for other, this in zip(medians["other"], medians["this"], strict=True)]
        print(f"\nother / this: {ratios[0]:.2f} for the command, {ratios[1]:.2f} for 39 more jobs")


if __name__ == "__main__":
    main()
