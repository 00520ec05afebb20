"""Hugging Face's Trainer with the callback: exact targets, and a resumed training that is the same bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from family_helpers import model_of
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from hydraprune.integrations.trainer import STATE_FILE, PruningCallback
from hydraprune.sparsity import Exp, Plan, SnipMomentum, SparsityError, block, heads, holds_pattern


def data() -> list[dict[str, Any]]:
    ids = torch.randint(5, 60, (96, 12), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": int(row[0] > 30)} for row in ids]


class StopAt(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def four_by_one() -> Plan:
    schedule = Exp(warmup=2, cooldown="1ep", frequency=2)
    return block(4, 1, target_sparsity=0.8).parts["4x1"].completed(SnipMomentum(), schedule)


def fit(
    folder: Path, *others: TrainerCallback, resume: str | None = None, **more: Any
) -> tuple[nn.Module, PruningCallback]:
    set_seed(0)
    model = model_of(more.pop("kind", "bert"))
    callback = PruningCallback(more.pop("plans", {"4x1": four_by_one()}), checkpoint=more.pop("checkpoint", None))
    options = {"num_train_epochs": 3, "save_steps": 6, "learning_rate": 1e-3, **more}
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=8, gradient_accumulation_steps=2, use_cpu=True, report_to=[],
        disable_tqdm=True, seed=0, **options,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data(), callbacks=[callback, *others])
    trainer.train(resume_from_checkpoint=resume)
    return model, callback


def test_the_target_is_reached_exactly(tmp_path: Path) -> None:
    _, callback = fit(tmp_path)
    assert callback.hooks is not None
    assert callback.hooks.step == 18
    assert callback.hooks.done
    (pruner,) = callback.hooks.pruners
    assert pruner.zeros / pruner.total == pytest.approx(0.8, abs=0.001)
    model_weights = {weight.name: weight.parameter.detach() for weight in pruner.weights}
    assert holds_pattern(pruner, model_weights)[0]
    assert not any("classifier" in weight.name or "pooler" in weight.name for weight in pruner.weights)


@pytest.mark.parametrize("cut", [5, 12])
def test_a_resumed_training_is_the_same_bit_for_bit(cut: int, tmp_path: Path) -> None:
    whole, _ = fit(tmp_path / "whole")
    fit(tmp_path / "cut", StopAt(cut))
    checkpoint = tmp_path / "cut" / f"checkpoint-{cut}"
    assert (checkpoint / STATE_FILE).is_file()
    resumed, callback = fit(tmp_path / "cut", resume=str(checkpoint))
    assert callback.hooks is not None
    assert callback.hooks.step == 18
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_checkpoint_without_masks_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, StopAt(5))
    checkpoint = tmp_path / "checkpoint-5"
    (checkpoint / STATE_FILE).unlink()
    with pytest.raises(SparsityError, match=r"the checkpoint of step 5 has no pruners\.safetensors"):
        fit(tmp_path, resume=str(checkpoint))


def test_heads_of_an_unknown_family(tmp_path: Path) -> None:
    plan = heads(0.5).parts["heads"].completed(SnipMomentum(), Exp(warmup=2, cooldown=2, frequency=2))
    _, callback = fit(tmp_path, kind="llama", plans={"heads": plan}, max_steps=10)
    assert callback.hooks is not None
    assert callback.hooks.done


def test_a_checkpoint_elsewhere_is_given_by_its_folder(tmp_path: Path) -> None:
    whole, _ = fit(tmp_path / "whole")
    fit(tmp_path / "cut", StopAt(12))
    elsewhere = tmp_path / "cut" / "checkpoint-12"
    with pytest.raises(SparsityError, match="checkpoint="):
        fit(tmp_path / "new", resume=str(elsewhere))
    resumed, _ = fit(tmp_path / "new", resume=str(elsewhere), checkpoint=elsewhere)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    fit(tmp_path / "one", StopAt(12))
    fit(tmp_path / "two", StopAt(12), learning_rate=1e-1)
    with pytest.raises(SparsityError, match="is not that of the checkpoint"):
        fit(
            tmp_path / "one",
            resume=str(tmp_path / "one" / "checkpoint-12"),
            checkpoint=tmp_path / "two" / "checkpoint-12",
        )


def test_an_epoch_is_one_of_the_data_with_max_steps_too(tmp_path: Path) -> None:
    schedule = Exp(warmup="1ep", cooldown="1ep", frequency=2)
    plan = block(4, 1, target_sparsity=0.8).parts["4x1"].completed(SnipMomentum(), schedule)
    _, callback = fit(tmp_path, plans={"4x1": plan}, max_steps=15)
    assert callback.hooks is not None
    assert (callback.hooks.pruners[0].updates.start, callback.hooks.step, callback.hooks.done) == (6, 15, True)


def test_the_best_model_cannot_be_loaded_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(SparsityError, match="load_best_model_at_end=True: the model with the best score"):
        fit(tmp_path, load_best_model_at_end=True, eval_strategy="no", save_strategy="no", metric_for_best_model="loss")
