"""The published commands: their flags have the same values in our configs. README.md has the table of flags."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from hydraprune.config import instantiate
from hydraprune.config.composition import resolved
from hydraprune.sparsity import in_steps

MRPC = {
    "task_name": "mrpc",
    "max_length": 128,
    "per_device_train_batch_size": 16,
    "learning_rate": 1e-3,
    "weight_decay": 1e-3,
    "num_train_epochs": 15,
    "cooldown_epochs": 5,
    "sparsity_warm_epochs": 1,
    "pruning_frequency": 50,
    "lr_scheduler_type": "constant",
    "distill_loss_weight": 5.0,
    "model": "bert_mini",
}
SST2 = {
    **MRPC,
    "task_name": "sst2",
    "learning_rate": 5e-5,
    "weight_decay": 5e-5,
    "sparsity_warm_epochs": 0,
    "pruning_frequency": 500,
    "distill_loss_weight": 2.0,
}
DISTILBERT = {
    **MRPC,
    "model": "distilbert",
    "max_length": 256,
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "num_train_epochs": 120,
    "cooldown_epochs": 40,
    "sparsity_warm_epochs": 0,
    "distill_loss_weight": 2.0,
}
PATTERNS = {"2:4": 0.5, "4x1": 0.9, "1xchannel": 0.9}
COMMANDS = [
    *(({**base, "pruning_pattern": p, "target_sparsity": t}) for base in (MRPC, SST2) for p, t in PATTERNS.items()),
    *(({**DISTILBERT, "pruning_pattern": p, "target_sparsity": PATTERNS[p]}) for p in ("4x1", "2:4")),
]
EXAMPLES = {"mrpc": 3668, "sst2": 67349}


def ours(*words: str) -> DictConfig:
    return OmegaConf.create(resolved(compose("config", list(words))))


def values(config: DictConfig) -> dict[str, Any]:
    """The published flags with the values of our config; durations in epochs of the task."""
    per_epoch = -(-EXAMPLES[config.task.name] // config.training.batch_size)

    def epochs(key: str) -> float:
        return in_steps(config.scheduler[key], per_epoch, key) / per_epoch

    return {
        "model": config.model.name,
        "task_name": config.task.subset,
        "max_length": config.task.max_length,
        "per_device_train_batch_size": config.training.batch_size,
        "learning_rate": config.optimizer.lr,
        "weight_decay": config.optimizer.weight_decay,
        "num_train_epochs": config.training.epochs,
        "cooldown_epochs": epochs("cooldown"),
        "sparsity_warm_epochs": epochs("warmup"),
        "pruning_frequency": config.scheduler.frequency,
        "lr_scheduler_type": config.lr_scheduler._target_.rsplit(".", 1)[-1],
        "distill_loss_weight": config.distill.weight,
        "pruning_pattern": instantiate.plans(OmegaConf.to_container(config)).name,
        "target_sparsity": instantiate.plans(OmegaConf.to_container(config)).target_sparsity,
    }


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c['task_name']} {c['model']} {c['pruning_pattern']}")
def test_the_values_of_a_published_command(command: dict[str, Any]) -> None:
    config = ours(f"model={command['model']}", f"task={command['task_name']}", f"pattern={command['pruning_pattern']}")
    assert values(config) == command
    assert config.recipe.source == "published"
    assert list(config.optimizer.betas) == [0.9, 0.9]
    assert config.optimizer.eps == 1e-6
    assert config.distill._target_.endswith("HiddenStates")
    assert config.pruner == {"_target_": "hydraprune.sparsity.SnipMomentum", "decay": 0.9}
    assert config.scheduler._target_.endswith("Exp")
    assert (config.pattern.scope, config.pattern.cap, config.pattern.floor) == ("global", 0.98, 0.0)
    assert config.training.max_grad_norm is None
    assert config.training.precision == "fp32"


def test_the_published_mixed_pattern() -> None:
    config = ours("model=bert_mini", "task=mrpc", "pattern=mixed")
    plans = instantiate.plans(OmegaConf.to_container(config))
    assert values(config) == {**MRPC, "pruning_pattern": "mixed", "target_sparsity": 0.9}
    found = {
        name: (p.pattern.name, p.selection.scope, p.selection.floor, p.selection.cap, p.layers.roles)
        for name, p in plans.parts.items()
    }
    assert found == {
        "attention_output": ("1x1", "local", 0.0, 0.98, ("attention_output",)),
        "ffn": ("1x1", "local", 0.0, 0.98, ("ffn",)),
        "attention": ("4x1", "global", 0.5, 0.98, ("attention",)),
    }


@pytest.mark.parametrize(
    ("task", "lr", "decay", "epochs", "batch"), [("mrpc", 5e-5, 5e-5, 5, 16), ("sst2", 5e-5, 0.0, 10, 32)]
)
def test_published_dense_runs(task: str, lr: float, decay: float, epochs: int, batch: int) -> None:
    config = ours("model=bert_mini", f"task={task}", "pattern=dense")
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (lr, decay)
    assert (config.training.epochs, config.training.batch_size) == (epochs, batch)
    assert list(config.optimizer.betas) == [0.9, 0.999]
    assert config.lr_scheduler._target_.endswith("linear")
    assert config.distill._target_.endswith("NoDistillation")


@pytest.mark.parametrize(
    ("task", "updates", "start", "last"), [("mrpc", 41, 230, 230 + 41 * 50), ("sst2", 84, 0, 84 * 500)]
)
def test_published_windows(task: str, updates: int, start: int, last: int) -> None:
    config = ours("model=bert_mini", f"task={task}")
    per_epoch = -(-EXAMPLES[task] // 16)
    (plan,) = instantiate.plans(OmegaConf.to_container(config)).parts.values()
    timeline = plan.schedule.over(15 * per_epoch, per_epoch)
    assert (timeline.count, timeline.start, timeline.last) == (updates, start, last)


def test_the_table_of_flags_names_keys_that_exist(root: Any) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `--(\w+)` \| (.+?) \|", readme, flags=re.MULTILINE)
    assert len(rows) == 16
    config = OmegaConf.create({"run": {"root": ""}, **OmegaConf.to_container(ours(), resolve=True)})  # type: ignore[dict-item]
    for flag, ours_cell in rows:
        for key in re.findall(r"`([a-z_.]+)`", ours_cell):
            assert OmegaConf.select(config, key) is not None or key.startswith("hydra."), (flag, key)
