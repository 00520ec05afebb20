"""The cost of fixed-shape teacher batches: `python benchmarks/teacher_groups.py`.

Side A runs the teacher on ordinary batches, side B as a run on a CPU does (hydraprune.training.fixed_shape_batches):
first on all examples once, A in batches of 32 with the longest first; then batch by batch as in training, with 16
examples grouped by length.
Both sides take turns in one process, on one thread; times are processor seconds, ratios are medians over the pairs.

Needs no network and no data (see material.py). Takes about three minutes; run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from material import SHAPES, TEXTS, TRIED, VOCABULARY, write_model
from torch import nn
from transformers import AutoModelForSequenceClassification

from hydraprune.data.batches import Batches, Encoded
from hydraprune.runs.setup import accelerator_for
from hydraprune.training.distillation import HiddenStates
from hydraprune.training.settings import Settings
from hydraprune.training.teachers import FixedShapeTeacher, OnlineTeacher, iter_outputs

# Training batches per turn.
_BATCHES = 8
_WIDEST = 128


def examples_of(task: str, most: int) -> Encoded:
    """Random token ids with the lengths of a task's examples."""
    counts = json.loads(Path(__file__).with_name("lengths.json").read_text(encoding="utf-8"))[task]["train"]
    generator = np.random.default_rng(0)
    lengths = np.repeat([int(n) for n in counts], list(counts.values()))
    generator.shuffle(lengths)
    offsets = torch.from_numpy(np.concatenate([[0], lengths[:most].cumsum()]))
    tokens = int(offsets[-1])
    ids = torch.from_numpy(generator.integers(VOCABULARY, size=tokens))
    inputs = {"input_ids": ids, "attention_mask": torch.ones(tokens, dtype=torch.long)}
    return Encoded(inputs, offsets, torch.zeros(len(offsets) - 1, dtype=torch.long), 0)


def seconds(side: Callable[[], object]) -> float:
    """Processor seconds of a call."""
    start = time.process_time()
    side()
    return time.process_time() - start


def in_turns(sides: dict[str, Callable[[], object]], pairs: int) -> dict[str, list[float]]:
    """Side -> its seconds in each pair; the sides take turns."""
    for side in sides.values():
        side()  # compiles and caches what each shape needs
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(pairs):
        for name, side in sides.items():
            taken[name].append(seconds(side))
    return taken


def asked_once(model: nn.Module, data: Encoded, accelerator: Accelerator, few: int) -> dict[str, Callable[[], object]]:
    """Both ways to run the teacher on all examples."""
    distiller, online = HiddenStates(1.0), OnlineTeacher(model, HiddenStates(1.0))

    @torch.no_grad()
    def batches() -> None:
        for batch in Batches(data, 32, few_widths=few).epoch():
            with accelerator.autocast():
                online.outputs(batch)

    return {"batches": batches, "groups": lambda: list(iter_outputs(model, distiller, Batches(data, 32), accelerator))}


def asked_in_training(
    model: nn.Module, data: Encoded, accelerator: Accelerator, few: int
) -> dict[str, Callable[[], object]]:
    """Both ways to run the teacher on a few batches of an epoch."""
    chosen = list(islice(Batches(data, 16, shuffle_seed=0, length_grouping=50, few_widths=few).epoch(), _BATCHES))
    teachers = {
        "batches": OnlineTeacher(model, HiddenStates(1.0)),
        "groups": FixedShapeTeacher(model, HiddenStates(1.0), data),
    }

    def asked(teacher: OnlineTeacher | FixedShapeTeacher) -> None:
        for batch in chosen:
            with accelerator.autocast():
                teacher.outputs(batch)

    return {name: lambda teacher=teacher: asked(teacher) for name, teacher in teachers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=[*SHAPES, *TRIED])
    parser.add_argument("--tasks", nargs="+", default=list(TEXTS), choices=list(TEXTS))
    parser.add_argument("--examples", type=int, default=600)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| | all examples once: groups / batches (least, most) | ms per training batch: ordinary | in groups |")
    print("|---|---|---|---|")
    for name in arguments.models:
        with tempfile.TemporaryDirectory(prefix="teacher-") as folder:
            write_model(Path(folder), (SHAPES | TRIED)[name])
            model = AutoModelForSequenceClassification.from_pretrained(folder)
        for task in arguments.tasks:
            data = examples_of(task, arguments.examples)
            for precision in ("fp32", "bf16"):
                settings = Settings(epochs=1, batch_size=16, precision=precision, device="cpu")
                accelerator, few = accelerator_for(settings), _WIDEST if precision == "bf16" else 0
                once = in_turns(asked_once(model, data, accelerator, few), arguments.pairs)
                ratios = [b / a for a, b in zip(once["batches"], once["groups"], strict=True)]
                turns = in_turns(asked_in_training(model, data, accelerator, few), arguments.pairs)
                ms = {side: f"{1000 * statistics.median(taken) / _BATCHES:.0f}" for side, taken in turns.items()}
                print(
                    f"| {name}, {task}, {precision} | {statistics.median(ratios):.2f} "
                    f"({min(ratios):.2f}, {max(ratios):.2f}) | {ms['batches']} | {ms['groups']} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
