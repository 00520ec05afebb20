"""Compare Wanda and SparseGPT on a decoder with their authors' code: `python benchmarks/causal_masks.py --code FOLDER`.

FOLDER is a checkout of github.com/locuslab/wanda, of which `lib/layerwrapper.py` and `lib/sparsegpt.py` are imported. A
small Llama with random weights is pruned twice by 32 rows of calibration text: by these classes, block after block of
the model as the authors' scripts do, and by `attach`. Printed are the places where one of the two models has a zero and
the other has none, the largest difference of a weight, and the perplexity of both. Takes some seconds on a CPU.

Where a target is no whole number of weights in a row the two differ: the authors round down in each row (Wanda), or
prune one weight more in every 128 columns (SparseGPT).
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hydraprune.data.batches import Batches, Encoded
from hydraprune.data.encoding import encode
from hydraprune.data.toy_tasks import ToyTextTask
from hydraprune.models.families import family_of_model
from hydraprune.models.tiny import TinyDecoder
from hydraprune.sparsity import OneShot, SparseGpt, Wanda, attach, block, n_of_m

ROWS, LENGTH = 32, 64
# (name of the pattern, target, N and M of its zeros; 0 where single weights compete)
CASES = (("2:4", 0.5, 2, 4), ("1x1", 0.5, 0, 0), ("1x1", 0.7, 0, 0))


def by_their_code(model: Any, data: Encoded, method: str, target: float, n: int, m: int) -> None:
    """Prune a Llama with the authors' classes, one block of the model after the other."""
    from lib.layerwrapper import WrappedGPT  # type: ignore[import-not-found]
    from lib.sparsegpt import SparseGPT  # type: ignore[import-not-found]

    rows = [Batches(data, 1).batch(torch.tensor([row])).inputs["input_ids"] for row in range(ROWS)]
    for layer in model.model.layers:
        linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
        kind = WrappedGPT if method == "wanda" else SparseGPT
        wrapped = {name: kind(module) for name, module in linears.items()}
        handles = [module.register_forward_hook(gather_by(wrapped[name])) for name, module in linears.items()]
        for ids in rows:
            model(ids)
        for handle in handles:
            handle.remove()
        for name, module in linears.items():
            if method == "sparse_gpt":
                wrapped[name].fasterprune(target, prune_n=n, prune_m=m, percdamp=0.01, blocksize=128)
            else:
                module.weight[wanda_mask(module.weight, wrapped[name].scaler_row, target, n, m)] = 0


def gather_by(wrapped: Any) -> Any:
    """A forward hook that gives a layer's inputs to one of the authors' objects."""
    return lambda _module, inputs, output: wrapped.add_batch(inputs[0], output)


def wanda_mask(weight: Tensor, norms: Tensor, target: float, n: int, m: int) -> Tensor:
    """What Wanda prunes by formula 1 of arXiv:2306.11695; `norms` are squared, [inputs]."""
    costs = weight.abs() * norms.sqrt()
    if n:
        groups = costs.view(len(costs), -1, m)
        places = groups.topk(n, dim=-1, largest=False).indices
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, places, True).view_as(costs)
    places = costs.sort(dim=1, stable=True).indices[:, : int(costs.shape[1] * target)]
    return torch.zeros_like(costs, dtype=torch.bool).scatter_(1, places, True)


def by_ours(model: Any, data: Encoded, method: str, pattern: str, target: float) -> None:
    """Prune it with `attach`."""

    def calibration(batches: int) -> Iterator[Tensor]:
        for row in range(batches):
            batch = Batches(data, 1).batch(torch.tensor([row]))
            yield batch.loss(batch.outputs(model))

    plans = n_of_m(2, 4) if pattern == "2:4" else block(rows=1, cols=1, target_sparsity=target)
    made = Wanda(batches=ROWS) if method == "wanda" else SparseGpt(batches=ROWS)
    parts = {name: plan.completed(made, OneShot()) for name, plan in plans.parts.items()}
    (pruner,) = attach(model, parts, family_of_model(model), steps=0, calibration=calibration)
    pruner.project(0)


def perplexity(model: Any, data: Encoded) -> float:
    """exp of the mean loss of all tokens."""
    losses, tokens = 0.0, 0
    for batch in Batches(data, 16).epoch():
        predicted = data.head.predictions(batch.outputs(model), batch.labels, batch.mask)
        losses += sum(loss for loss, _ in predicted)
        tokens += sum(data.head.references(batch.labels))
    return math.exp(losses / tokens)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, required=True, metavar="FOLDER", help="a checkout of locuslab/wanda")
    sys.path.insert(0, str(parser.parse_args().code))
    if not torch.cuda.is_available():
        torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]  # their code waits for a GPU
    torch.manual_seed(0)
    source, task = TinyDecoder("llama", 64, 2, 4, 128, initializer_range=0.2), ToyTextTask("text", 2000, 200, 0, LENGTH)
    texts = task.load()
    model = source.load(texts.labels).eval()
    train, check = (
        encode(source.tokenizer(), examples, LENGTH, texts.labels)
        for examples in (texts.train, texts.evaluations["validation"])
    )
    print(f"perplexity before: {perplexity(model, check):.4f}\n")
    print("| method, pattern, target | other zeros | largest difference | perplexity: theirs | ours |")
    print("|---|---|---|---|---|")
    for method in ("wanda", "sparse_gpt"):
        for pattern, target, n, m in CASES:
            theirs, ours = copy.deepcopy(model), copy.deepcopy(model)
            by_their_code(theirs, train, method, target, n, m)
            by_ours(ours, train, method, pattern, target)
            pairs = list(zip(theirs.parameters(), ours.parameters(), strict=True))
            other = sum(int(((a == 0) != (b == 0)).sum()) for a, b in pairs)
            largest = max(float((a - b).abs().max()) for a, b in pairs)
            shown = f"{perplexity(theirs, check):.4f} | {perplexity(ours, check):.4f}"
            print(f"| {method}, {pattern}, {target} | {other} | {largest:.1e} | {shown} |")


if __name__ == "__main__":
    main()
