"""The published script's training loop, reimplemented from its description, as the baseline of the race.

Random batches padded to their longest example, the teacher's forward pass in every step, AdamW with
torch's defaults, a score for every layer in every step of the run, an out-of-place mask
multiplication for every layer in every step, and an evaluation and the whole state written after every
epoch. As a program it trains a whole recipe: `python published_loop.py JSON`, with the fields of `Recipe`.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset, load_from_disk
from material import RECIPES, TARGET, TEXTS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

BATCH = 16
BLOCK = 4
MOMENTUM = 0.9
MOST_PER_LAYER = 0.98


class PublishedPruner:
    """Snip momentum on 4x1 blocks over all layers at once, as implemented in the published tool."""

    def __init__(self, modules: dict[str, nn.Linear]) -> None:
        self.modules = modules
        self.masks = {name: torch.ones_like(m.weight, dtype=torch.bool) for name, m in modules.items()}
        self.scores: dict[str, Tensor] = {
            name: torch.zeros(m.weight.shape[0] // BLOCK, m.weight.shape[1], device=m.weight.device)
            for name, m in modules.items()
        }

    @torch.no_grad()
    def update(self, ratio: float) -> None:
        """Update the masks to sparsity `ratio`; every layer keeps at least 2 % of its blocks."""
        pending, frozen = dict(self.scores), dict[str, Tensor]()
        total = sum(score.numel() for score in self.scores.values())
        while pending:
            count = int(total * ratio) - sum(int((~keep).sum()) for keep in frozen.values())
            if count <= 0:
                break
            pooled = torch.cat([score.flatten() for score in pending.values()])
            threshold = torch.kthvalue(pooled, count).values
            capped = {}
            for name, score in pending.items():
                keep = score > threshold
                if 1 - keep.sum().item() / keep.numel() > MOST_PER_LAYER:
                    limit = torch.kthvalue(score.flatten(), int(score.numel() * MOST_PER_LAYER)).values
                    capped[name] = score > limit
                self.masks[name] = keep.repeat_interleave(BLOCK, dim=0)
            for name, keep in capped.items():
                frozen[name] = keep
                self.masks[name] = keep.repeat_interleave(BLOCK, dim=0)
                del pending[name]
            if not capped:
                break
        self.apply()

    @torch.no_grad()
    def score(self) -> None:
        for name, module in self.modules.items():
            assert module.weight.grad is not None
            saliency = torch.abs(module.weight.data * module.weight.grad.data)
            rows, columns = saliency.shape
            blocks = saliency.reshape(rows // BLOCK, BLOCK, columns, 1).mean(dim=(1, 3))
            self.scores[name] = self.scores[name] * MOMENTUM + blocks

    @torch.no_grad()
    def apply(self) -> None:
        for name, module in self.modules.items():
            module.weight.data = module.weight.data * self.masks[name]


class PublishedLoop:
    """The training loop. Dropout, optimizer and loss are those of the published recipe."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        rows: Dataset,
        pruned: dict[str, nn.Linear],
        lr: float,
        weight_decay: float,
        distill_weight: float,
        cpu: bool,
    ) -> None:
        self.accelerator = Accelerator(cpu=cpu)
        self.teacher = copy.deepcopy(model).eval()
        self.distill_weight = distill_weight
        self.rows, self.collate = rows, DataCollatorWithPadding(tokenizer)
        still = ("bias", "LayerNorm.weight")
        named = list(model.named_parameters())
        groups = [
            {
                "params": [p for n, p in named if not any(s in n for s in (*still, "classifier"))],
                "weight_decay": weight_decay,
            },
            {"params": [p for n, p in named if any(s in n for s in still)], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.9), eps=1e-6)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.teacher.to(self.accelerator.device)
        self.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        self.pruner = PublishedPruner(pruned)

    @classmethod
    def of(cls, model: Path, data: Path, task: str, device: str) -> PublishedLoop:
        """The loop of a task's recipe, with a model and data of folders (see material.py)."""
        recipe, tokenizer = RECIPES[task], AutoTokenizer.from_pretrained(model)
        loaded = AutoModelForSequenceClassification.from_pretrained(model)
        pruned = {n: m for n, m in loaded.named_modules() if isinstance(m, nn.Linear) and ".encoder." in n}
        rows = encoded(tokenizer, data, task, "train")
        rates = recipe.lr, recipe.weight_decay, recipe.distill_weight
        return cls(loaded, tokenizer, rows, pruned, *rates, cpu=device == "cpu")

    def batches(self, chosen: list[list[int]]) -> Iterator[Any]:
        """Batches of the given rows (the published script draws them at random), collated one by one."""
        loader = DataLoader(self.rows, batch_sampler=chosen, collate_fn=self.collate)  # type: ignore[arg-type]
        yield from self.accelerator.prepare(loader)

    def step(self, batch: Any) -> Tensor:
        """One step between two mask updates; returns the loss."""
        outputs = self.model(**batch, output_hidden_states=True)
        with torch.no_grad():
            answers = self.teacher(**batch, output_hidden_states=True)
        # The task's loss (outputs.loss) is computed and then replaced, padded positions included in the mean.
        loss = self.distill_weight * F.mse_loss(outputs.hidden_states[-1], answers.hidden_states[-1])
        self.accelerator.backward(loss)
        self.pruner.score()
        self.optimizer.step()
        self.pruner.apply()
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def save(self, folder: Path) -> None:
        """Save the state that the script writes after every epoch."""
        self.accelerator.save_state(str(folder))

    @torch.no_grad()
    def evaluate(self, rows: Dataset) -> dict[str, float]:
        """Accuracy, and F1 of class 1."""
        self.model.eval()
        loader = self.accelerator.prepare(DataLoader(rows, batch_size=BATCH, collate_fn=self.collate))  # type: ignore[arg-type]
        pairs = [(self.model(**batch).logits.argmax(-1), batch["labels"]) for batch in loader]
        self.model.train()
        found, labels = (torch.cat(column).cpu() for column in zip(*pairs, strict=True))
        both = int((found & labels).sum())
        return {
            "f1": 2 * both / max(1, int(found.sum() + labels.sum())),
            "accuracy": float((found == labels).float().mean()),
        }


def encoded(tokenizer: Any, data: Path, task: str, split: str) -> Dataset:
    """A split as token ids and labels."""
    columns, _ = TEXTS[task]
    return (
        load_from_disk(str(data))[split]
        .map(
            lambda batch: tokenizer(*(batch[column] for column in columns), truncation=True, max_length=128),
            batched=True,
            remove_columns=list(columns),
        )
        .rename_column("label", "labels")
    )


def in_order(lengths: int, seed: int) -> list[list[int]]:
    """The batches of an epoch, drawn at random: indices of examples."""
    order = torch.randperm(lengths, generator=torch.Generator().manual_seed(seed)).tolist()
    return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


@dataclass(frozen=True)
class Recipe:
    """A whole training: folders, the task's name, and how the process computes."""

    model: str
    data: str
    task: str
    folder: str
    frequency: int
    threads: int
    device: str
    seed: int

    def train(self) -> dict[str, Any]:
        """Final metrics, seconds by kind, and the folder of the model."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)
        started, recipe = time.perf_counter(), RECIPES[self.task]
        folder, data = Path(self.folder), Path(self.data)
        loop = PublishedLoop.of(Path(self.model), data, self.task, self.device)
        validation = encoded(AutoTokenizer.from_pretrained(self.model), data, self.task, "validation")
        per_epoch = -(-len(loop.rows) // BATCH)
        first, last = recipe.warmup * per_epoch, (recipe.epochs - recipe.cooldown) * per_epoch
        count, step, spent, final = (last - first) // self.frequency, 0, {"eval": 0.0, "train": 0.0}, {}
        loop.model.train()
        for epoch in range(recipe.epochs):
            start = time.perf_counter()
            for batch in loop.batches(in_order(len(loop.rows), 1000 * self.seed + epoch)):
                index, rest = divmod(step - first, self.frequency)
                if rest == 0 and 0 <= index <= count and (index or not count):
                    loop.pruner.update(1 - (1 - TARGET) ** (index / count if count else 1))
                loop.step(batch)
                step += 1
            middle = time.perf_counter()
            final = loop.evaluate(validation)
            spent["train"] += middle - start
            spent["eval"] += time.perf_counter() - middle
            loop.save(folder / "state")
            shutil.rmtree(folder / "state")
        loop.model.save_pretrained(folder / "model")
        return {"final": final, "seconds": {**spent, "total": time.perf_counter() - started}, "steps": step}


if __name__ == "__main__":
    result = Recipe(**json.loads(sys.argv[1])).train()
    print(json.dumps(result))
