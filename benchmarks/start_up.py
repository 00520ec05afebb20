"""Measures how long models take to load, and what they take in memory: ours, ONNX Runtime, OpenVINO.

    python benchmarks/start_up.py                            # bert-mini and MiniLM, 4x1 at 90 %
    python benchmarks/start_up.py --models minilm=FOLDER     # a real model, its weights pruned in one step

Each side loads in a fresh process, as in `hydraprune bench`: on one core, with one thread, its libraries imported and
its kernels compiled before. Sides take turns, and the figures are medians of the rounds. Memory is resident memory
above that before loading: after loading, after some calls, and at its highest. The calls are batches of 1 and 8 texts
of 32 and 128 words that are as frequent as words are. Sides whose engine is not installed are left out.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from inference import SHAPES, prune, versions
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from hydraprune.bench.machine import cores_for, machine
from hydraprune.bench.models import BenchModel
from hydraprune.bench.options import Side
from hydraprune.bench.places import Place, places
from hydraprune.bench.processes import WorkerProcess
from hydraprune.deploy import accelerate, save_compact
from hydraprune.utils.hub_access import quiet_libraries

ENGINES = [Side("onnxruntime", "fp32"), Side("openvino", "fp32"), Side("openvino", "bf16")]
# (name, precision of the values, of the embeddings).
COMPACT = (("compact", "fp32", "fp32"), ("compact, bf16 and fp16", "bf16", "fp16"))
COLUMNS = ("CPU ms", "loaded MB", "after calls MB", "peak MB")


class Start(NamedTuple):
    """What is started."""

    name: str
    side: Side
    folder: Path


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--models", nargs="+", default=list(SHAPES), help="shapes, or NAME=FOLDER")
    words.add_argument("--density", type=float, default=0.1)
    words.add_argument("--rows", type=int, default=4, help="of a block: 1, 2, 4, 8")
    words.add_argument("--rounds", type=int, default=7)
    chosen = words.parse_args()
    logging.disable(logging.WARNING)
    quiet_libraries()
    here = machine(cores_for(1))
    print(f"{here.cpu} ({', '.join(here.flags)}); torch {torch.__version__}{versions()}; load {os.getloadavg()[0]:.1f}")
    for name in chosen.models:
        with tempfile.TemporaryDirectory() as folder:
            model = classifier_of(name)
            prune(model, chosen.density, chosen.rows)
            starts = list(starts_of(model, Path(folder)))
            found: dict[Start, list[tuple[float, ...]]] = {start: [] for start in starts}
            for _ in range(chosen.rounds):
                for start in starts:
                    found[start].append(measured(start, batches(model)))
        print(f"\n{name}, {chosen.rows}x1 with {chosen.density:.0%} of the weights left, medians of {chosen.rounds}")
        print(f"  {'':<34}" + "".join(f"{column:>16}" for column in COLUMNS))
        for start, values in found.items():
            shown = [statistics.median(each) for each in zip(*values, strict=True)]
            print(f"  {start.name:<34}" + "".join(f"{value:16.1f}" for value in shown))


def classifier_of(name: str) -> nn.Module:
    name, _, folder = name.partition("=")
    torch.manual_seed(0)
    if folder:
        loaded: nn.Module = AutoModelForSequenceClassification.from_pretrained(folder)
        return loaded.eval()
    return BertForSequenceClassification(BertConfig(**SHAPES[name])).eval()


def starts_of(model: Any, folder: Path) -> Iterator[Start]:
    """The folders of a model, and of what it is converted to."""
    dense = folder / "model"
    model.save_pretrained(dense)
    precisions = [p for p in ("fp32", "bf16") if accelerate(model, p).acceleration.precision == p]
    for precision in precisions:
        yield Start(f"ours {precision}, a model", Side("hydraprune", precision), dense)
    for name, values, embeddings in COMPACT:
        target = folder / name.replace(", ", "-").replace(" ", "-")
        target.mkdir()
        save_compact(model, target, values, embeddings)  # type: ignore[arg-type]
        model.config.save_pretrained(target)
        yield Start(f"ours fp32, {name}", Side("hydraprune", "fp32"), target)
    for side, place in places(BenchModel("model", str(dense), dense, model, None), ENGINES, None, folder).items():
        if isinstance(place, Place):
            yield Start(str(side), side, place.folder)
        else:
            print(f"  {side}: {place.reason}")


def batches(model: Any) -> list[dict[str, list[list[int]]]]:
    """Four batches of each size, of words with Zipf-Mandelbrot frequencies."""
    generator, frequency = np.random.default_rng(0), 1 / (np.arange(10_000) + 2.7)
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * (getattr(model.config, "type_vocab_size", 0) > 1)
    made = []
    for shape in ((1, 32), (8, 128)) * 4:
        ids = 1000 + generator.choice(10_000, shape, p=frequency / frequency.sum())
        values: Sequence[Any] = (ids, np.ones_like(ids), np.zeros_like(ids))
        made.append({name: value.tolist() for name, value in zip(names, values, strict=False)})
    return made


def measured(start: Start, calls: list[dict[str, list[list[int]]]]) -> tuple[float, ...]:
    """The `COLUMNS` of one process."""
    process = WorkerProcess(1, cores_for(1))
    try:
        engine, precision = start.side.engine, start.side.precision
        loaded = process.ask("start", engine=engine, precision=precision, folder=str(start.folder), threads=1)
        before = process.ask("memory")
        process.ask("add", workload="calls", batches=calls)
        after = process.ask("memory")
    finally:
        process.end()
    sizes = [before["resident"], after["resident"], after["peak"] or float("nan")]
    return (1000 * loaded["cpu_seconds"], *(size / 1e6 for size in sizes))


if __name__ == "__main__":
    main()
