"""Print up to which density the kernels train and run an encoder layer faster than PyTorch on this machine.

Rows are layers of BERT in the shapes of bert-mini, all-MiniLM-L6 and BERT-base, with random weights and dropout 0.1, on
batches of up to 16 texts; times are as a run measures them (hydraprune.models.switch_density). Takes about two minutes:
run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from training_step import machine
from transformers import BertConfig, BertModel

from hydraprune.kernels.dropout import use_fast_dropout
from hydraprune.kernels.training import compile_training
from hydraprune.models.attention import choose_attention
from hydraprune.models.live_layers import LiveLayers
from hydraprune.models.switch_density import Workload, measure

# Name -> hidden size, heads, size of the feed-forward network.
SHAPES = {"bert-mini": (256, 4, 1024), "MiniLM": (384, 12, 1536), "BERT-base": (768, 12, 3072)}
# Mean tokens of SST-2 and MRPC.
TOKENS = (13, 54)


def layers_of(name: str, folder: Path) -> LiveLayers:
    """One layer."""
    hidden, heads, ffn = SHAPES[name]
    config = BertConfig(
        hidden_size=hidden, num_attention_heads=heads, intermediate_size=ffn, num_hidden_layers=1, vocab_size=100
    )
    base: Any = BertModel(config)
    choose_attention(base, torch.device("cpu"))
    use_fast_dropout(base)
    return LiveLayers(base, compile_training(folder))


def autocast(precision: str) -> AbstractContextManager[None]:
    """As a run of that precision computes."""
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, os.cpu_count() or 1])
    arguments = parser.parse_args()
    print(machine("cpu"))
    print("\n| layer, tokens, threads, pass | ms: PyTorch | ms: kernels | ms: kernels, density 0.1 | switch density |")
    print("|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for threads in dict.fromkeys(arguments.threads):
            torch.set_num_threads(threads)
            for name in SHAPES:
                layers = layers_of(name, Path(folder))
                for tokens in TOKENS:
                    for precision in ("fp32", "bf16"):
                        for trains in (True, False):
                            work = Workload.like(16, tokens, precision, trains)
                            times = measure(layers, work, lambda kind=precision: autocast(kind))  # type: ignore[misc]
                            kind = f"{precision} {'forward and backward' if trains else 'forward'}"
                            shown = [f"{1e3 * each:.2f}" for each in (times.torch, times.whole, times.sparse)]
                            row = [f"{name}, {tokens}, {threads}, {kind}", *shown, f"{times.switch_density:g}"]
                            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
