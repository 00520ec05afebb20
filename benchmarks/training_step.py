"""Race training steps, or whole trainings, of three builds of a loop: `python benchmarks/training_step.py`.

The sides are the published script's loop (published_loop.py); `before`, the last build that computed every
step dense, which is taken from the history of this repository into an environment of its own (or from a
checkout: --before FOLDER); and `now`, the build that is running. The latter two in fp32 and in bf16. Each
side runs in its own process; they take turns, a chunk of steps each, and every ratio is the median over at
least five pairs of chunks, with the least and the most.

Rows are densities of the pruned layers, patterns of 4x1. Masks come from each side's own pruner, which jumps
to the density in one update at the end of the ramp. The steps are those of the cooldown, which is where a
published run has its final density; at density 1 those of the warm-up. In the cooldown nobody needs scores,
and the project computes none; the published script does, as in every step. With --ramp the steps are those
before the last update, where every side scores. Batches represent an epoch: one from each stratum of lengths.

--recipe races whole trainings instead: 15 epochs of warm-up, ramp and cooldown, from the start of the process
to the saved model, and compares what came out. With --examples they are shorter; masks are then updated more
often, about 40 times in all. Each round (--pairs) has a seed of its own.

Models and data are synthetic (see material.py) and need no network; real ones are given as NAME=FOLDER. The
synthetic labels are random, so that metrics mean something for real data only.

--device cuda prints the same tables for a GPU: sides wait for it before the clock is read. That has not been
run yet; processor times then say how long the host is busy.

Takes about 90 minutes on two cores, whole recipes take hours; run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from earlier_build import Build, earlier_build, running_build
from material import SHAPES, TEXTS, TRIED, copy_task, size_of, write_model, write_task
from race import PUBLISHED, SIDES, Case, interpreter, race
from recipes import race_recipes
from side_tables import recipe_tables, step_tables


def machine(device: str) -> str:
    """A line about the machine and the versions."""
    import transformers

    from hydraprune.bench.machine import machine as this_machine

    here = this_machine(None)
    where = f"{here.cpu} ({', '.join(here.flags)}), {here.cores} cores"
    if device == "cuda":
        where = f"{torch.cuda.get_device_name()}; {where}"
    load = "" if here.load is None else f"; load {here.load[0]:.1f}"
    return f"{where}; torch {torch.__version__}, transformers {transformers.__version__}; {here.system}{load}"


def named(given: str, known: Sequence[str]) -> tuple[str, Path | None]:
    """Name and folder of an argument NAME or NAME=FOLDER."""
    name, _, folder = given.partition("=")
    if not folder and name not in known:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}, and no folder is given for it")
    if folder and not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{folder} is not a folder")
    return name, Path(folder).resolve() if folder else None


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models, tasks = [*SHAPES, *TRIED], list(TEXTS)
    parser.add_argument(
        "--models",
        nargs="+",
        default=[(name, None) for name in SHAPES],
        type=lambda word: named(word, models),
        help=f"{', '.join(models)}, or NAME=FOLDER of a classifier",
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[(name, None) for name in TEXTS],
        type=lambda word: named(word, tasks),
        help="mrpc, sst2, or one of them as NAME=FOLDER in GLUE's layout",
    )
    parser.add_argument(
        "--sides", nargs="+", default=["published", "before", "now"], choices=["published", "before", "now"]
    )
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--densities", nargs="+", type=float, default=[1.0, 0.5, 0.2, 0.1])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--pairs", type=int, help="chunks per side (5), or whole trainings (1)")
    parser.add_argument("--steps", type=int, default=16, help="steps per chunk")
    parser.add_argument("--ramp", action="store_true", help="steps before the last mask update, which are scored")
    parser.add_argument("--recipe", action="store_true", help="whole trainings instead of steps")
    parser.add_argument("--examples", type=int, help="fewer examples of each split")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="a checkout of the earlier build")
    parser.add_argument("--overrides", nargs="+", default=[], metavar="KEY=VALUE", help="more for the side `now`")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    for density in arguments.densities:
        if not 0.02 <= density <= 1:
            parser.error(f"--densities {density}: give shares of weights to keep, between 0.02 and 1")
    for name, _ in arguments.tasks:
        if name not in TEXTS:
            parser.error(f"--tasks {name}: give mrpc or sst2, or a folder for one of them")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here")
    return arguments


def main() -> None:
    arguments = parsed()
    sides = [
        side
        for side in SIDES
        if side.build in arguments.sides and (side == PUBLISHED or side.precision in arguments.precisions)
    ]
    everything: list[dict[str, Any]] = []
    print(machine(arguments.device), flush=True)
    with tempfile.TemporaryDirectory(prefix="training-step-") as name:
        root = Path(name)
        builds: dict[str, Build] = {"now": running_build()}
        if "before" in arguments.sides:
            (root / "before").mkdir()
            builds["before"] = earlier_build(root / "before", arguments.before)
        print("\n".join(interpreter(build) for build in builds.values()), flush=True)
        for model, folder in arguments.models:
            if folder is None:
                write_model(root / model, (SHAPES | TRIED)[model])
            else:
                (root / model).symlink_to(folder)
        for task, folder in arguments.tasks:
            if folder is None:
                write_task(root / task, task, arguments.examples)
            else:
                copy_task(root / task, task, folder, arguments.examples)
        for threads in arguments.threads:
            for model, _ in arguments.models:
                for task, _ in arguments.tasks:
                    examples = size_of(root / task)
                    case = Case(model, task, root, examples, threads, arguments.device, tuple(arguments.overrides))
                    if arguments.recipe:
                        found = race_recipes(case, sides, builds, arguments.pairs or 1)
                        lines = recipe_tables(found, case, sides)
                    else:
                        pairs = arguments.pairs or 5
                        found = race(case, sides, builds, arguments.densities, pairs, arguments.steps, arguments.ramp)
                        lines = step_tables(found, case, sides, arguments.ramp)
                    everything.append(found)
                    print("\n".join(lines), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
