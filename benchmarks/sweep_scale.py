"""Processor time of `watch`, `report` and `dashboard` over thousands of runs: `python benchmarks/sweep_scale.py`.

One toy run is trained; its report and curves, with other names, seeds and scores, become the sweep of each size, a part
of it still waiting. Each command runs in a new process; user and system seconds, peak memory, size of the page.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from hydraprune.results.plan_file import Plan, Planned, load_plan, write_plan
from hydraprune.results.report import RunReport, load_report, write_report

WORDS = (
    *(
        "task=toy",
        "model=tiny",
        "pattern=4x1",
        "training.epochs=2",
        "scheduler.warmup=0.1ep",
        "scheduler.cooldown=0.2ep",
    ),
    *("task.train_examples=200", "task.evaluation_examples=100", "dense.overrides=['training.epochs=1']"),
)
PATTERNS = ("4x1", "2:4", "1xchannel", "mixed", "8x1")
SEEDS = 5


def run(words: list[str], folder: Path) -> tuple[float, float]:
    """(user and system seconds, peak megabytes) of `hydraprune ...` in a new process."""
    program = "from hydraprune.cli import main; main()"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = f"import resource, atexit, sys; sys.argv = ['hydraprune', *{words!r}]; " + (
        "atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=open('peak', 'w')));"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{measured}{program}"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, int((folder / "peak").read_text()) / 1000


def sweep_of(count: int, waiting: float, model: RunReport, curves: str, saved: Path, folder: Path) -> None:
    """A sweep of `count` jobs made from one run's report, in cells of five seeds; a share of them has not started."""
    generator = random.Random(0)
    jobs = []
    score = model.final[model.metric or ""] or 0.0
    for number in range(count):
        cell, seed = divmod(number, SEEDS)
        pattern = PATTERNS[cell % len(PATTERNS)]
        words = (f"pattern={pattern}", f"seed={seed}", f"optimizer.lr={1e-5 * (1 + cell // len(PATTERNS)):g}")
        spec = replace(
            model.spec, hash=f"{number:012x}", cell=f"{cell:012x}", pattern=pattern, seed=seed, overrides=words
        )
        directory = folder / "toy" / "tiny" / pattern.replace(":", "of") / f"run-seed{seed}-{number:012x}"
        jobs.append(Planned(spec, directory, words, steps=model.steps))
        if generator.random() < waiting:
            continue
        directory.mkdir(parents=True)
        final = {**model.final, model.metric or "": min(1.0, score + generator.gauss(0, 0.01))}
        write_report(replace(model, spec=spec, final=final), directory)
        (directory / "metrics.jsonl").write_text(curves)
        (directory / "model").mkdir()
        for file in saved.iterdir():
            os.link(file, directory / "model" / file.name)
    write_plan(Plan(("made",), 1, tuple(jobs), ()), folder)
    assert load_plan(folder) is not None


def trained(folder: Path) -> tuple[RunReport, str]:
    """The report and the curves of a small run."""
    run(["train", *WORDS, "hydra.run.dir=run"], folder)
    report = load_report(folder / "run")
    assert report is not None
    return report, (folder / "run" / "metrics.jsonl").read_text()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2500, 5000, 10000])
    parser.add_argument("--dashboard", type=int, nargs="+", default=[1000, 3000])
    arguments = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline")
    print("| runs | command | s | MB | page, MB |\n|---:|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, curves = trained(folder)
        for size in sorted({*arguments.sizes, *arguments.dashboard}):
            for waiting in (0.0, 0.5):
                made = folder / "sweep"
                sweep_of(size, waiting, model, curves, folder / "run" / "model", made)
                commands = [["watch", "--once", "sweep"]] if size in arguments.sizes else []
                if not waiting:
                    commands += [["report", "sweep"]] if size in arguments.sizes else []
                    commands += [["dashboard", "sweep"]] if size in arguments.dashboard else []
                for words in commands:
                    seconds, memory = run(words, folder)
                    pages = sum(page.stat().st_size for page in made.glob("*.html")) / 1e6
                    shown = f"{pages:.1f}" if words[0] == "dashboard" else ""
                    name = " ".join(words[:-1]) + (", half waiting" if waiting else "")
                    print(f"| {size:,} | {name} | {seconds:.1f} | {memory:.0f} | {shown} |", flush=True)
                shutil.rmtree(made)


if __name__ == "__main__":
    main()
