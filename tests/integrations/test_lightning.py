"""Lightning with the callback, where the package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hydraprune.sparsity import Exp, Family, SnipMomentum, SparsityError, block

lightning = pytest.importorskip("lightning.pytorch")


def data() -> DataLoader[tuple[Tensor, ...]]:
    inputs = torch.randn(128, 16, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=8)


def module(optimizers: int = 1) -> Any:
    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
            self.automatic_optimization = optimizers == 1

        def training_step(self, batch: Any, _: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            made = [torch.optim.AdamW(self.parameters(), lr=1e-3) for _ in range(optimizers)]
            return made if optimizers > 1 else made[0]

    return Module()


def fit(folder: Path, stop_after: int = 0, checkpoint: str | None = None, model: Any = None) -> tuple[Any, Any]:
    from hydraprune.integrations.lightning import PruningCallback

    class Stop(lightning.Callback):  # type: ignore[name-defined, misc]
        def on_train_epoch_end(self, trainer: Any, _: Any) -> None:
            trainer.should_stop |= trainer.current_epoch + 1 == stop_after

    model = model or module()
    schedule = Exp(warmup=2, cooldown=6, frequency=2)
    plan = block(4, 1, target_sparsity=0.75).parts["4x1"].completed(SnipMomentum(), schedule)
    callback = PruningCallback({"4x1": plan}, Family("mine", outside=["net.4"]))
    saving = lightning.callbacks.ModelCheckpoint(folder, save_last=True)
    trainer = lightning.Trainer(
        max_epochs=3, callbacks=[callback, saving, Stop()], accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, accumulate_grad_batches=2 if stop_after >= 0 else 1,
    )  # fmt: skip
    trainer.fit(model, data(), ckpt_path=checkpoint)
    return model, callback.hooks


def test_a_resumed_training_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    whole, hooks = fit(tmp_path / "whole")
    assert (hooks.step, hooks.done) == (24, True)
    _, hooks = fit(tmp_path / "cut", stop_after=1)
    assert (hooks.step, hooks.done) == (8, False)
    resumed, hooks = fit(tmp_path / "cut", checkpoint=str(tmp_path / "cut" / "last.ckpt"))
    assert (hooks.step, hooks.done) == (24, True)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_several_optimizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SparsityError, match="the module has 2 optimizers"):
        fit(tmp_path, stop_after=-1, model=module(optimizers=2))


def test_masks_are_those_of_calls_in_a_loop(tmp_path: Path) -> None:
    from hydraprune.sparsity import attach

    trained, _ = fit(tmp_path, model=(same := module()))
    assert trained is same
    model = module()
    schedule = Exp(warmup=2, cooldown=6, frequency=2)
    plan = block(4, 1, target_sparsity=0.75).parts["4x1"].completed(SnipMomentum(), schedule)
    (pruner,) = attach(model, {"4x1": plan}, Family("mine", outside=["net.4"]), 24)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pruner.project(0, optimizer)
    step = 0
    for _ in range(3):
        for number, batch in enumerate(data()):
            (model.training_step(batch, number) / 2).backward()
            if number % 2:
                pruner.observe(step)
                optimizer.step()
                pruner.project(step := step + 1, optimizer)
                optimizer.zero_grad()
    for one, two in zip(trained.parameters(), model.parameters(), strict=True):
        assert torch.equal(one == 0, two == 0)
        assert torch.allclose(one, two, atol=1e-6)
