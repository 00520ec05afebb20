"""Every file in conf/ composes and instantiates, with tiny random weights in place of hub checkpoints."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from experiment_helpers import dense_run
from hydra import compose
from omegaconf import DictConfig

from hydraprune.config import instantiate
from hydraprune.config.archive import as_yaml
from hydraprune.config.composition import choices_of, conf_dir, resolved
from hydraprune.config.identity import identify
from hydraprune.errors import UserError
from hydraprune.runs.experiment import build_experiment
from hydraprune.sparsity import parse

CONF = conf_dir()
FILE_TASKS = ("question_answering", "multiple_choice", "text", "masked_text")
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
GROUPS = sorted({path.parent.name for path in FILES if path.parent.name})


# pattern=parts has no parts of its own and needs at least one.
A_PART = "+pattern@pattern.parts.all=4x1"
PARTS = {"dense": 0, "mixed": 3, "slim": 2}
# Methods that prune once before training, and by default do not train.
AT_ONCE = {("pruner", name) for name in ("wanda", "sparse_gpt", "retrain_free")}


def names(group: str) -> list[str]:
    return sorted(path.stem for path in FILES if path.parent.name == group)


def composed(*words: str) -> DictConfig:
    config: DictConfig = compose("config", list(words), return_hydra_config=True)
    return config


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small random checkpoints of the architectures that conf/model names."""
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertTokenizer,
        DistilBertConfig,
        DistilBertForSequenceClassification,
    )

    folder = tmp_path_factory.mktemp("checkpoints")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "good", "bad"]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    bert = BertConfig(vocab_size=9, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    distilbert = DistilBertConfig(vocab_size=9, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    made = {"bert": BertForSequenceClassification(bert), "distilbert": DistilBertForSequenceClassification(distilbert)}
    for name, model in made.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: str(folder / name) for name in made}


def test_config_groups() -> None:
    wanted = {"phase", "model", "task", "pattern", "scheduler", "pruner", "distill", "optimizer", "lr_scheduler"}
    assert set(GROUPS) == wanted | {"training", "tracker", "recipe", "experiment", "matrix", "demo_matrix", "study"} | {
        "progressive",
        "regularizer",
        "method",
        "engine",
    }
    assert len(FILES) > 50


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name not in ("", "recipe")], ids=str)
def test_every_config_file_composes_and_instantiates(path: Path) -> None:
    group, name = path.parent.name, path.stem
    words = [f"{group}={name}"]
    words += {"phase": [f"pattern={'dense' if name == 'dense' else '4x1'}"], "task": []}.get(group, [])
    if group == "task" and name in ("file", "tags", "label_sets", *FILE_TASKS):
        words.append("task.path=mine.csv")
    if (group, name) == ("model", "checkpoint"):
        words.append("model.path=mine")
    words += {("scheduler", "at_start"): ["pruner=magnitude"]}.get((group, name), [])
    if (group, name) == ("pattern", "parts"):
        words.append(A_PART)
    if (group, name) in (("pruner", "none"), ("scheduler", "none"), ("distill", "none")):
        words.append("pattern=dense")
    if group == "tracker" and name in ("tensorboard", "mlflow", "trackio"):
        pytest.importorskip(name)
    config = composed(*words)
    experiment = build_experiment(config)
    made = experiment.components
    assert choices_of(config)[group] == name
    assert made.settings.epochs >= (0 if (group, name) in AT_ONCE or group == "method" else 1)
    assert made.task.name == experiment.config["task"]["name"]
    assert len(made.plans.parts) == PARTS.get(name if group == "pattern" else made.plans.name, 1)
    instantiate.make(experiment.config, "tracker").close(None)


def test_recipes_are_picked_by_model_task_and_phase() -> None:
    recipes = names("recipe")
    assert len(recipes) >= 8
    for recipe in recipes:
        rest, phase = recipe.rsplit("_", 1)
        model, task = rest.rsplit("_", 1)
        pattern = "pattern=dense" if phase == "dense" else "pattern=4x1"
        config = resolved(composed(f"model={model}", f"task={task}", pattern))
        assert config["recipe"]["name"] == recipe
        assert config["recipe"]["source"] in ("published", "ours")
        known = set(resolved(composed("model=bert_base", "task=cola", pattern))["recipe"])
        assert set(config["recipe"]) <= known
    assert resolved(composed("model=bert_base", "task=cola"))["recipe"]["source"] == "none"


@pytest.mark.parametrize("model", names("model"))
@pytest.mark.parametrize("pattern", [name for name in names("pattern") if name != "dense"])
def test_every_pattern_fits_every_model(model: str, pattern: str, checkpoints: dict[str, str]) -> None:
    words = [f"model={model}", f"pattern={pattern}", "task=toy"]
    if pattern == "parts":
        words.append(A_PART)
    if not model.startswith("tiny"):
        words.append(f"model.path={checkpoints['distilbert' if model == 'distilbert' else 'bert']}")
    config = resolved(composed(*words))
    made = instantiate.Components(config)
    network = made.model.blueprint()
    assert next(network.parameters()).device == torch.device("meta")
    pruners = instantiate.pruners(made.plans, network, 1500, 100)
    pruned = {weight.name for pruner in pruners for weight in pruner.weights}
    linear = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    encoder = {f"{name}.weight" for name in linear if re.search(r"layers?\.\d", name)}
    attention = {name for name in encoder if ".attention." in name or ".self_attn." in name}
    encoder = {"heads": attention, "ffn_channels": encoder - attention}.get(pattern, encoder)
    assert pruned == encoder
    assert all(units.target <= units.total for pruner in pruners for _, units in pruner.pools)


TOY = ("model=tiny", "task=toy")


def test_every_criterion_with_every_schedule() -> None:
    # Each file is composed once: composition takes most of the time.
    blueprint = instantiate.Components(resolved(composed(*TOY))).model.blueprint()
    plans = {}
    for pruner in names("pruner"):
        if pruner != "none":
            words = ["pattern=1xchannel"] if pruner == "retrain_free" else []
            plans[pruner] = instantiate.plans(resolved(composed(*TOY, f"pruner={pruner}", *words)))
    schedules = {}
    for scheduler in names("scheduler"):
        if scheduler != "none":
            made = instantiate.plans(resolved(composed(*TOY, "pruner=magnitude", f"scheduler={scheduler}")))
            schedules[scheduler] = made.parts["4x1"].schedule
    for pruner, found in plans.items():
        ((name, plan),) = found.parts.items()
        for scheduler, schedule in schedules.items():
            both = replace(found, parts={name: replace(plan, schedule=schedule)})
            if (refusal := expected_refusal(pruner, scheduler)) is not None:
                with pytest.raises(UserError, match=refusal):
                    instantiate.pruners(both, blueprint, 1500, 100)
            else:
                assert len(instantiate.pruners(both, blueprint, 1500, 100)) == 1


def expected_refusal(pruner: str, scheduler: str) -> str | None:
    """The error of a criterion and a schedule that do not suit each other; None if they do."""
    once = ("pruner", pruner) in AT_ONCE
    if once and scheduler not in ("at_start", "oneshot"):
        return f"^pruner={pruner}: prunes once; use scheduler=oneshot or at_start$"
    if scheduler == "threshold" and pruner != "soft_movement":
        return "^scheduler=threshold: is for scores that are learned"
    if scheduler == "at_start" and not once and pruner not in ("magnitude", "sr_ste"):
        return "would prune before the first step"
    return None


@pytest.mark.parametrize("pruner", ["soft_movement", "rigl"])
def test_a_group_choice_inside_a_part_stays_there(pruner: str) -> None:
    config = resolved(composed("pattern=mixed", f"+pruner@pattern.parts.ffn.pruner={pruner}"))
    names = [type(part(config, name).criterion).__name__.lower() for name in ("ffn", "attention")]
    assert names == [pruner.replace("_", ""), "snipmomentum"]
    assert {type(part(config, name).schedule).__name__ for name in ("ffn", "attention")} == {"Exp"}


def test_parts_with_post_training_and_lock() -> None:
    words = [
        "pattern=parts",
        "model=tiny",
        "task=toy",
        "+pattern@pattern.parts.a=4x1",
        "pattern.parts.a.layers.roles=[ffn]",
    ]
    words += [
        "+pattern.parts.a.pruner._target_=hydraprune.sparsity.Wanda",
        "+scheduler@pattern.parts.a.scheduler=at_start",
    ]
    words += ["+pattern.parts.b._target_=hydraprune.sparsity.lock"]
    words += ["+pattern.parts.b.layers={_target_: hydraprune.sparsity.Layers, roles: [attention]}"]
    made = build_experiment(composed(*words)).components
    kinds = [type(pruner).__name__ for pruner in instantiate.pruners(made.plans, made.model.blueprint(), 1500, 100)]
    assert kinds == ["Calibrated", "Lock"]


def test_the_refusal_of_a_criterion_names_the_config_key() -> None:
    made = instantiate.Components(resolved(composed("model=tiny", "task=toy", "pattern=2:4", "pruner=rigl")))
    with pytest.raises(UserError, match=r"^pruner=rigl: exchanges whole units, and those of 2:4 are groups"):
        instantiate.pruners(made.plans, made.model.blueprint(), 1500, 100)
    made = instantiate.Components(resolved(composed("model=tiny", "task=toy", "pattern.reduce=max", "pruner=movement")))
    with pytest.raises(UserError, match=r"^pattern\.reduce=max: .*use mean or sum"):
        instantiate.pruners(made.plans, made.model.blueprint(), 1500, 100)
    with pytest.raises(UserError, match=r"^pruner\.size=0: must be a whole number from 1 to 256"):
        instantiate.plans(resolved(composed("pruner=fisher", "pruner.size=0")))


@pytest.mark.parametrize("pruner", sorted(name for _, name in AT_ONCE))
def test_pruning_without_training_is_a_default_that_typing_overrides(pruner: str) -> None:
    words = ["model=tiny", "task=toy", f"pruner={pruner}", "pattern=2:4"]
    config = resolved(composed(*words))
    assert (config["training"]["epochs"], config["scheduler"]["_target_"]) == (0, "hydraprune.sparsity.OneShot")
    assert config["training"]["batch_size"] == resolved(composed("model=tiny", "task=toy"))["training"]["batch_size"]
    more = resolved(composed(*words, "training.epochs=2", "scheduler=oneshot", "scheduler.warmup=3"))
    assert (more["training"]["epochs"], more["scheduler"]["warmup"]) == (2, 3)
    # It starts from the same dense model as other runs.
    other = build_experiment(composed("model=tiny", "task=toy"))
    assert dense_run(build_experiment(composed(*words))).spec.hash == dense_run(other).spec.hash


def test_the_name_of_a_pattern_follows_its_sizes() -> None:
    for pattern in set(names("pattern")) - {"dense", "mixed", "heads", "ffn_channels", "slim", "lock", "parts"}:
        plans = instantiate.plans(resolved(composed(f"pattern={pattern}")))
        plan = plans.parts[plans.name]
        assert parse(plans.name) == plan.pattern
    assert instantiate.plans(resolved(composed("pattern=4x1", "pattern.rows=8"))).name == "8x1"
    assert instantiate.plans(resolved(composed("pattern=2:4"))).name == "2:4"
    assert resolved(composed("pattern=2:4")) == resolved(composed("pattern=2of4"))


def part(config: DictConfig, name: str) -> Any:
    return instantiate.plans(config).parts[name]


def test_keys_of_a_part_take_precedence() -> None:
    config = resolved(
        composed(
            "pattern=mixed",
            "pattern.target_sparsity=.8",
            "pattern.parts.ffn.target_sparsity=.7",
            "pattern.parts.attention.rows=8",
            "scheduler.frequency=30",
            "pattern.parts.ffn.scheduler.frequency=10",
            "pruner.decay=0.8",
            "pattern.parts.ffn.pruner._target_=hydraprune.sparsity.Magnitude",
            "+pattern.parts.attention_output.pruner.decay=0.5",
        )
    )
    assert {n: p.selection.target_sparsity for n, p in instantiate.plans(config).parts.items()} == {
        "attention_output": 0.8,
        "ffn": 0.7,
        "attention": 0.8,
    }
    assert part(config, "attention").pattern.name == "8x1"
    assert part(config, "ffn").pattern.name == "1x1"
    assert (part(config, "ffn").schedule.frequency, part(config, "attention").schedule.frequency) == (10, 30)
    assert type(part(config, "ffn").criterion).__name__ == "Magnitude"
    assert part(config, "attention").criterion.decay == 0.8
    assert part(config, "attention_output").criterion.decay == 0.5


def test_a_part_with_another_class_inherits_the_rest() -> None:
    config = resolved(
        composed(
            "pattern=mixed", "scheduler.warmup=7", "pattern.parts.ffn.scheduler._target_=hydraprune.sparsity.Linear"
        )
    )
    schedule = part(config, "ffn").schedule
    assert (type(schedule).__name__, schedule.warmup) == ("Linear", 7)
    build_experiment(
        composed("pattern=mixed", "pattern.parts.ffn.scheduler._target_=hydraprune.sparsity.Linear")
    )  # its keys are checked too


def test_a_part_takes_a_criterion_or_schedule_by_name() -> None:
    words = ("pattern=mixed", "+pruner@pattern.parts.ffn.pruner=snip", "+scheduler@pattern.parts.ffn.scheduler=cubic")
    config = resolved(composed(*words))
    assert type(part(config, "ffn").criterion).__name__ == "Snip"
    assert type(part(config, "ffn").schedule).__name__ == "Cubic"
    assert type(part(config, "attention").criterion).__name__ == "SnipMomentum"


@pytest.mark.parametrize("group", ["pattern", "pruner", "scheduler", "progressive", "regularizer"])
def test_the_methods_page_lists_every_choice(group: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    assert [name for name in names(group) if name != "none" and f"`{name}`" not in page] == []


def test_the_saved_config_means_the_same_run() -> None:
    experiment = build_experiment(composed("pattern=2:4", "task=sst2", "seed=3"))
    again = yaml.safe_load(as_yaml(experiment.config))
    assert identify(again, "2:4", dense_run(experiment).identity) == experiment.identity
