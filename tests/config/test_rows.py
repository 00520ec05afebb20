"""Rows of the config groups matrix and demo_matrix: each stands for several overrides."""

from __future__ import annotations

import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from hydraprune.config import instantiate
from hydraprune.config.composition import conf_dir, plain, resolved
from hydraprune.config.identity import Identity, identify
from hydraprune.results.reference import PUBLISHED
from hydraprune.runs.experiment import build_experiment

# row -> (the same overrides, pattern, target)
MATRIX = {
    "bert_mini_mrpc_4x1": ("model=bert_mini task=mrpc pattern=4x1", "4x1", 0.9),
    "bert_mini_mrpc_2of4": ("model=bert_mini task=mrpc pattern=2:4", "2:4", 0.5),
    "bert_mini_mrpc_1xchannel": (
        "model=bert_mini task=mrpc pattern=1xchannel pattern.target_sparsity=0.6", "1xchannel", 0.6,
    ),
    "bert_mini_mrpc_mixed": ("model=bert_mini task=mrpc pattern=mixed scheduler.frequency=auto", "mixed", 0.9),
    "bert_mini_sst2_4x1": ("model=bert_mini task=sst2 pattern=4x1", "4x1", 0.9),
    "bert_mini_sst2_2of4": ("model=bert_mini task=sst2 pattern=2:4", "2:4", 0.5),
    "bert_mini_sst2_1xchannel": (
        "model=bert_mini task=sst2 pattern=1xchannel pattern.target_sparsity=0.5", "1xchannel", 0.5,
    ),
    "distilbert_mrpc_4x1": ("model=distilbert task=mrpc pattern=4x1", "4x1", 0.9),
    "distilbert_mrpc_2of4": ("model=distilbert task=mrpc pattern=2:4", "2:4", 0.5),
}  # fmt: skip
_DEMO = "model=tiny task=toy lr_scheduler=linear runtime.threads=1 pattern="
DEMO = {
    "4x1": (f"{_DEMO}4x1", "4x1", 0.9),
    "2of4": (f"{_DEMO}2:4", "2:4", 0.5),
    "1xchannel": (f"{_DEMO}1xchannel pattern.target_sparsity=0.6", "1xchannel", 0.6),
    "mixed": (f"{_DEMO}mixed", "mixed", 0.9),
}


def composed(*words: str) -> DictConfig:
    return OmegaConf.create(resolved(compose("config", list(words))))


def identity(config: DictConfig) -> Identity:
    return identify(plain(config), instantiate.plans(OmegaConf.to_container(config)).name)


@pytest.mark.parametrize(("group", "rows"), [("matrix", MATRIX), ("demo_matrix", DEMO)])
def test_every_row_is_tested_here(group: str, rows: dict[str, object]) -> None:
    assert {file.stem for file in (conf_dir() / group).glob("*.yaml")} == set(rows)


@pytest.mark.parametrize("row", MATRIX)
def test_a_row_of_the_published_matrix(row: str) -> None:
    words, pattern, target = MATRIX[row]
    config = composed(f"matrix={row}")
    assert identity(config) == identity(composed(*words.split()))
    plans = instantiate.plans(OmegaConf.to_container(config))
    assert (plans.name, plans.target_sparsity) == (pattern, target)
    assert config.recipe.source == "published"
    frequency = {"mrpc": 50, "sst2": 500}[config.task.name]
    assert config.scheduler.frequency == ("auto" if pattern == "mixed" else frequency)
    published = {(p.model, p.task, p.pattern, p.target_sparsity) for p in PUBLISHED}
    assert ((config.model.name, config.task.name, pattern, target) in published) == (pattern != "mixed")


def test_every_published_figure_has_a_row() -> None:
    assert sum(pattern != "mixed" for _, pattern, _ in MATRIX.values()) == len(PUBLISHED)


@pytest.mark.parametrize("row", DEMO)
def test_a_row_of_the_demonstration(row: str) -> None:
    words, pattern, target = DEMO[row]
    config = composed(f"demo_matrix={row}")
    assert identity(config) == identity(composed(*words.split()))
    plans = instantiate.plans(OmegaConf.to_container(config))
    assert (plans.name, plans.target_sparsity) == (pattern, target)


@pytest.mark.parametrize("words", [("matrix=bert_mini_mrpc_4x1",), ("matrix=bert_mini_sst2_1xchannel", "seed=3")])
def test_a_row_is_the_run_of_the_same_overrides(words: tuple[str, ...]) -> None:
    """Including its dense model."""
    row, *others = words
    typed = MATRIX[row.removeprefix("matrix=")][0].split()
    found, by_hand = (
        build_experiment(compose("config", [*asked, *others], return_hydra_config=True)) for asked in ([row], typed)
    )
    assert found.identity == by_hand.identity
    assert found.directory == by_hand.directory


def test_overrides_take_precedence_over_a_row() -> None:
    assert composed("optimizer.lr=0.5", "matrix=bert_mini_mrpc_4x1").optimizer.lr == 0.5
