"""The published script's training loop, reimplemented from its description, as the baseline of the race.

Random batches padded to their longest example, the teacher's forward pass in every step, AdamW with
torch's defaults, a score for every layer in every step of the run, an out-of-place mask
multiplication for every layer in every step, and the whole state written after every epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding

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
