"""Race a training step against that of the published script: `python benchmarks/training_step.py`.

Side A is the published script's loop (published_loop.py); side B is the project's loop as `train.py`
builds it, in fp32 and in bf16. The batches represent an epoch, in the middle of the ramp of 4x1 at
90 %. Each side runs in its own process; they take turns, a chunk of steps each, and every ratio
is the median over the pairs of chunks. Mask updates, and A's saving after every epoch, are timed
separately and spread over the steps between them.

Needs no network and no data (see material.py). Takes about 15 minutes on two cores; run nothing else
meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from material import SHAPES, TEXTS, TRIED, write_model, write_task

from hydraprune.utils.system import SPINS

HERE = Path(__file__).parent
SIDES = ("published", "fp32", "bf16")
GOALS = {
    ("mrpc", "fp32", "bert-mini"): 2.2,
    ("mrpc", "fp32", "MiniLM"): 2.2,
    ("mrpc", "bf16", "bert-mini"): 4.0,
    ("mrpc", "bf16", "MiniLM"): 3.7,
    ("sst2", "fp32", "bert-mini"): 3.6,
    ("sst2", "fp32", "MiniLM"): 3.6,
    ("sst2", "bf16", "bert-mini"): 4.7,
    ("sst2", "bf16", "MiniLM"): 4.7,
}
MASKING = {"mrpc": 0.02, "sst2": 0.04}


class Worker:
    """A side, running in its own process."""

    def __init__(self, side: str, task: str, folder: Path, arguments: argparse.Namespace, threads: int) -> None:
        order = {
            "side": side,
            "task": task,
            "folder": str(folder),
            "threads": threads,
            "steps": arguments.steps,
            "device": arguments.device,
            "born": time.time(),
        }
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if side != "published":
            environment.setdefault("GOMP_SPINCOUNT", str(SPINS))  # as the command line does
        self.log = (folder / f"{side}.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "sides.py"), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )
        self._answer()

    def ask(self, name: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        print(json.dumps([name, *arguments]), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(Path(self.log.name).read_text(encoding="utf-8")[-3000:])
        return json.loads(line)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def race(model: str, task: str, threads: int, material: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model, task and number of threads."""
    with tempfile.TemporaryDirectory(prefix="race-") as name:
        folder = Path(name)
        (folder / "model").symlink_to(material / model)
        (folder / "task").symlink_to(material / task)
        workers = {side: Worker(side, task, folder, arguments, threads) for side in SIDES}
        found: dict[str, Any] = {"model": model, "task": task, "threads": threads, "pairs": []}
        found["about"] = {side: worker.ask("about") for side, worker in workers.items()}
        for number in range(arguments.pairs):
            chunks = {side: worker.ask("chunk", number) for side, worker in workers.items()}
            found["pairs"].append(
                {side: {**chunk, "update": workers[side].ask("update")} for side, chunk in chunks.items()}
            )
        # Before `plain`, which needs more.
        found["memory"] = {side: worker.ask("memory") for side, worker in workers.items()}
        found["parts"] = {side: workers[side].ask("parts", 77) for side in SIDES[1:]}
        found["plain"] = {side: workers[side].ask("plain", 77) for side in SIDES[1:]}
        found["compiled"] = workers["fp32"].ask("compiled")
        found["save"] = {side: worker.ask("save") for side, worker in workers.items()}
        for worker in workers.values():
            worker.end()
    return found


def steps_of(found: dict[str, Any]) -> dict[str, list[float]]:
    """Side -> seconds per step in each pair, with its share of mask updates and of A's saving."""
    ours = found["about"]["fp32"]
    per_epoch = found["about"]["published"]["steps_per_epoch"]
    result: dict[str, list[float]] = {side: [] for side in SIDES}
    for pair in found["pairs"]:
        for side in SIDES:
            seconds = pair[side]["seconds"] + pair[side]["update"] / ours["frequency"]
            if side == "published":
                seconds += found["save"][side]["seconds"] / per_epoch
            result[side].append(seconds)
    return result


def show(found: dict[str, Any]) -> list[str]:
    """The figures as lines of a Markdown table."""
    task, model, ours = found["task"], found["model"], found["about"]["fp32"]
    steps = steps_of(found)
    middle = {side: statistics.median(values) for side, values in steps.items()}
    lines = [
        f"\n### {model}, {task}, {found['threads']} thread{'s' * (found['threads'] > 1)}\n",
        "| | published fp32 | ours fp32 | ours bf16 |",
        "|---|---|---|---|",
    ]

    def row(name: str, values: list[str]) -> None:
        lines.append(f"| {name} | {' | '.join(values)} |")

    row("ms per step (median)", [f"{middle[side] * 1e3:.1f}" for side in SIDES])
    ratios = {side: [a / b for a, b in zip(steps["published"], steps[side], strict=True)] for side in SIDES[1:]}
    row(
        "**times as fast** (median of pairs; least, most; goal)",
        ["1"]
        + [
            f"**{statistics.median(r):.2f}** ({min(r):.2f}, {max(r):.2f}; {GOALS.get((task, side, model), '-')})"
            for side, r in ratios.items()
        ],
    )
    row("tokens computed / real tokens", [f"{_mean(found, side, 'padding'):.3f}" for side in SIDES])
    parts, plain = found["parts"], found["plain"]
    for name in ("forward", "backward", "optimizer", "score", "mask", "teacher", "batch", "rest"):
        row(f"ms: {name}", ["", *(f"{parts[side][name] * 1e3:.2f}" for side in SIDES[1:])])
    frequency = ours["frequency"]
    updates = {side: statistics.median(pair[side]["update"] for pair in found["pairs"]) for side in SIDES}
    row("ms: one mask update", [f"{updates[side] * 1e3:.1f}" for side in SIDES])
    row("mask update / step (goal 0.5)", [f"{updates[side] / middle[side]:.2f}" for side in SIDES])
    kinds = [("compiled", parts), ("plain torch", plain)] if found["compiled"] else [("plain torch", parts)]
    for kind, by_side in kinds:
        shares = [
            (by_side[side]["score"] + by_side[side]["mask"] + updates[side] / frequency) / middle[side]
            for side in SIDES[1:]
        ]
        row(f"pruning / step, {kind} (goal {MASKING[task]:.0%})", ["", *(f"{share:.1%}" for share in shares)])
    row("ms: score, plain torch", ["", *(f"{plain[side]['score'] * 1e3:.2f}" for side in SIDES[1:])])
    row("ms: forward + backward, plain torch", ["", *(_both(plain[side]) for side in SIDES[1:])])
    whole = {side: middle[side] * ours["epochs"] * ours["steps_per_epoch"] for side in SIDES}
    for name in ("start", "teacher", "evaluation"):
        row(f"s: {name}", ["", *(f"{found['about'][side][name]:.1f}" for side in SIDES[1:])])
    row("s: saving and counting at the end", ["", *(f"{found['save'][side]['seconds']:.1f}" for side in SIDES[1:])])
    extra = {
        s: found["about"][s]["start"] + found["about"][s]["teacher"] + found["save"][s]["seconds"] for s in SIDES[1:]
    }
    row(
        f"times as fast over {ours['epochs']} epochs, with our start, teacher pass and end; evaluations in neither",
        ["1", *(f"{whole['published'] / (whole[s] + extra[s]):.2f}" for s in SIDES[1:])],
    )
    around = [(found["about"][s]["start"] + found["save"][s]["seconds"]) / whole[s] for s in SIDES[1:]]
    row(f"start + saving / {ours['epochs']} epochs (goal 2 %)", ["", *(f"{share:.2%}" for share in around)])
    row("MB: peak memory", [f"{found['memory'][side]['peak'] / 1e6:.0f}" for side in SIDES])
    row("MB: of these mapped files", [f"{found['memory'][side]['mapped'] / 1e6:.0f}" for side in SIDES])
    written = [found["save"][side]["bytes"] * (ours["epochs"] if side == "published" else 1) for side in SIDES]
    row(f"MB: written in {ours['epochs']} epochs", [f"{size / 1e6:.0f}" for size in written])
    return lines


def _both(parts: dict[str, float]) -> str:
    return f"{(parts['forward'] + parts['backward']) * 1e3:.2f}"


def _mean(found: dict[str, Any], side: str, name: str) -> float:
    return statistics.fmean(pair[side][name] for pair in found["pairs"])


def machine(device: str) -> list[str]:
    """A description of the machine and the versions."""
    import torch
    import transformers

    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags"))
        model += f" ({', '.join(f for f in ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16') if f in flags.split())})"
    except (OSError, StopIteration):
        pass
    where = torch.cuda.get_device_name() if device == "cuda" else model
    return [f"{where}, {os.cpu_count()} cores; torch {torch.__version__}, transformers {transformers.__version__}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=[*SHAPES, *TRIED])
    parser.add_argument("--tasks", nargs="+", default=list(TEXTS), choices=list(TEXTS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--pairs", type=int, default=5, help="chunks per side")
    parser.add_argument("--steps", type=int, default=16, help="steps per chunk")
    parser.add_argument("--examples", type=int, help="fewer examples, to try out the script")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    everything = []
    print("\n".join(machine(arguments.device)), flush=True)
    with tempfile.TemporaryDirectory(prefix="material-") as name:
        material = Path(name)
        for model in arguments.models:
            write_model(material / model, (SHAPES | TRIED)[model])
        for task in arguments.tasks:
            write_task(material / task, task, arguments.examples)
        for threads in arguments.threads:
            for model in arguments.models:
                for task in arguments.tasks:
                    found = race(model, task, threads, material, arguments)
                    everything.append(found)
                    print("\n".join(show(found)), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
