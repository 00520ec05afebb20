"""Time single operations of a step and their alternatives: `python benchmarks/operations.py`.

Medians in ms with the shapes of MiniLM (six layers, hidden 384, batches of 16 x 54 tokens); the variants
take turns. Takes about two minutes; run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from hydraprune.data.batches import Encoded
from hydraprune.kernels import dropout
from hydraprune.kernels.dropout import fast_dropout, use_fast_dropout
from hydraprune.models.attention import choose_attention
from hydraprune.models.compact_embedding import compact
from hydraprune.sparsity import Block, NofM, SnipMomentum, cheapest, use_compiled
from hydraprune.sparsity import saliency_kernels as products
from hydraprune.utils.system import keep_freed_memory

SHAPES = [(384, 384), (384, 384), (384, 384), (384, 384), (1536, 384), (384, 1536)] * 6
REPEATS = 9


def race(title: str, variants: dict[str, Callable[[], Any]]) -> None:
    """Print the median time of every variant; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(REPEATS + 1):
        for name, work in variants.items():
            start = time.perf_counter()
            work()
            if round_:
                times[name].append((time.perf_counter() - start) * 1e3)
    for name, found in times.items():
        print(f"| {title} | {name} | {statistics.median(found):.2f} |", flush=True)


def scoring(folder: Path) -> None:
    weights = [torch.randn(shape).unsqueeze(1) for shape in SHAPES]
    gradients = [torch.randn(shape).unsqueeze(1) for shape in SHAPES]
    criterion, pattern = SnipMomentum(), Block(4, 1)
    memory = criterion.update_state(None, weights, gradients, pattern)

    def ours() -> None:
        criterion.update_state(memory, weights, gradients, pattern)

    use_compiled(folder)
    library, products._compiled = products._compiled, None

    def compiled() -> None:
        products._compiled = library
        ours()
        products._compiled = None

    def mean() -> None:
        for m, w, g in zip(memory, weights, gradients, strict=True):
            m.mul_(0.9).add_((w * g).abs_().reshape(w.shape[0] // 4, 4, w.shape[2], 1).mean((1, 3)))

    def norm() -> None:
        for m, w, g in zip(memory, weights, gradients, strict=True):
            m.mul_(0.9).add_(torch.linalg.vector_norm((w * g).view(w.shape[0] // 4, 4, -1), 1, dim=1), alpha=0.25)

    def foreach() -> None:
        saliency = torch._foreach_mul(weights, gradients)
        torch._foreach_abs_(saliency)
        for m, p in zip(memory, saliency, strict=True):
            m.mul_(0.9).add_(p.view(p.shape[0] // 4, 4, -1).sum(1), alpha=0.25)

    variants = {"one pass, compiled": compiled, "row by row, torch": ours, "mean over two axes": mean}
    race("score 4x1", {**variants, "foreach over layers": foreach, "vector_norm": norm})


def masking() -> None:
    weights = [torch.randn(shape) for shape in SHAPES]
    views = [w.view(w.shape[0] // 4, 4, -1) for w in weights]
    small = [(torch.rand(v.shape[0], 1, v.shape[2]) > 0.9).float() for v in views]
    whole = [m.expand(v.shape).reshape(w.shape).contiguous() for m, v, w in zip(small, views, weights, strict=True)]
    bools = [m.bool() for m in whole]
    gone = [~m for m in bools]

    def each(work: Callable[[Tensor, Tensor], Any], masks: list[Tensor]) -> Callable[[], None]:
        return lambda: [work(w, m) for w, m in zip(weights, masks, strict=True)] and None

    race(
        "mask 4x1",
        {
            "small float masks, foreach": lambda: torch._foreach_mul_(views, small),
            "whole float masks, in place": each(torch.Tensor.mul_, whole),
            "whole bool masks, in place": each(torch.Tensor.mul_, bools),
            "whole bool masks, new tensor": each(torch.mul, bools),
            "masked_fill_": each(lambda w, m: w.masked_fill_(m, 0.0), gone),
        },
    )


def selecting() -> None:
    scores = torch.rand(sum(rows * columns // 4 for rows, columns in SHAPES)) ** 8
    count = int(len(scores) * 0.7)
    race(
        "70 % of 2.65 M blocks",
        {
            "histogram of the upper bits": lambda: cheapest(scores, count),
            "kthvalue and compare": lambda: scores <= scores.kthvalue(count).values,
            "sort and compare": lambda: scores <= scores.sort().values[count - 1],
        },
    )
    cells = torch.rand(1536, 1, 384)
    race(
        "2:4, two lowest of each group, one layer",
        {
            "by rank": lambda: NofM(2, 4).zeroed(cells),
            "by sorting": lambda: cells.reshape(-1, 4).argsort(dim=-1, stable=True),
        },
    )


def dropping(folder: Path) -> None:
    values = torch.randn(16, 54, 384)

    dropout.use_compiled(folder)
    library, dropout._compiled = dropout._compiled, None

    def compiled() -> None:
        dropout._compiled = library
        fast_dropout(values, 0.1)
        dropout._compiled = None

    race(
        "dropout of 16 x 54 x 384",
        {
            "16 bits, compiled": compiled,
            "16 bits, torch": lambda: fast_dropout(values, 0.1),
            "torch.dropout": lambda: torch.dropout(values, 0.1, True),
        },
    )


def stepping(folder: Path) -> None:
    config = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    ids = torch.randint(0, 11_000, (16, 54))
    data = Encoded({"input_ids": torch.arange(11_570)}, torch.tensor([0, 11_570]), torch.zeros(1), 0)
    dropout.use_compiled(folder)

    def model(attention: str, fast: bool, few: bool) -> tuple[Any, Any]:
        made = BertForSequenceClassification(BertConfig(**config, attn_implementation=attention)).train()
        if fast:
            choose_attention(made, torch.device("cpu"))
            use_fast_dropout(made)
        if few:
            compact(made, torch.optim.AdamW, [data])
        return made, torch.optim.AdamW(made.parameters(), fused=True)

    def step(made: Any, optimizer: Any, bf16: bool) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            hidden = made.base_model(input_ids=ids).last_hidden_state
        hidden.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    kinds = {
        "as transformers makes it (sdpa)": model("sdpa", False, False),
        "eager attention": model("eager", False, False),
        "fast dropout": model("sdpa", True, False),
        "fast dropout, compact vocabulary": model("sdpa", True, True),
    }
    for bf16 in (False, True):
        name = f"step without pruning, {'bf16' if bf16 else 'fp32'}"
        race(name, {kind: partial(step, *pair, bf16) for kind, pair in kinds.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    keep_freed_memory()
    print("| what | how | ms |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        scoring(Path(name))
        masking()
        selecting()
        dropping(Path(name))
        stepping(Path(name))


if __name__ == "__main__":
    main()
