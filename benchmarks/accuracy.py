"""Compare the accuracy of finished sparse runs: `python benchmarks/accuracy.py FOLDER...`.

Runs below the folders are grouped by length grouping and precision. Each group is compared, seed by
seed, with the runs that use plain shuffling in fp32, in the headline metric of the final evaluation.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import yaml

# Two-sided 95 % of Student's t by degrees of freedom.
T95 = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def figures(folders: list[str]) -> dict[tuple[str, str], dict[int, tuple[float, float]]]:
    """(grouping, precision) -> seed -> (dense, sparse)."""
    found: dict[tuple[str, str], dict[int, tuple[float, float]]] = defaultdict(dict)
    for path in sorted(p for folder in folders for p in Path(folder).rglob("report.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["phase"] != "sparse" or report["status"] != "finished":
            continue
        config = yaml.safe_load(path.with_name("config.yaml").read_text(encoding="utf-8"))
        grouping = config["training"]["length_grouping"]
        cell = ("plain" if grouping == 1 else f"grouped by {grouping}", report["precision"])
        metric = report["metric"]
        found[cell][report["seed"]] = (report["dense"][metric], report["final"][metric])
    return found


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.4f} ± {deviation:.4f}"


def difference(values: dict[int, float], base: dict[int, float]) -> str:
    """Mean paired difference over the seeds that both have, with its 95 % interval."""
    seeds = sorted(set(values) & set(base))
    differences = [values[seed] - base[seed] for seed in seeds]
    if len(seeds) < 2:
        return "—"
    half = T95[min(len(seeds) - 1, len(T95) - 1)] * statistics.stdev(differences) / math.sqrt(len(seeds))
    return f"{statistics.fmean(differences):+.4f} [{-half + statistics.fmean(differences):+.4f}, " + (
        f"{half + statistics.fmean(differences):+.4f}]"
    )


def main() -> None:
    found = figures(sys.argv[1:])
    base = found.get(("plain", "fp32"), {})
    print("| batches, precision | seeds | dense | sparse | sparse minus plain fp32, paired (95 %) | sparse by seed |")
    print("|---|---|---|---|---|---|")
    for cell in sorted(found, key=lambda cell: (cell[1] != "fp32", cell[0] != "plain")):
        runs = found[cell]
        sparse = {seed: value for seed, (_, value) in runs.items()}
        paired = difference(sparse, {seed: value for seed, (_, value) in base.items()})
        each = ", ".join(f"{sparse[seed]:.4f}" for seed in sorted(sparse))
        dense = [value for value, _ in runs.values()]
        row = (f"{cell[0]}, {cell[1]}", str(len(runs)), spread(dense), spread([*sparse.values()]), paired, each)
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
