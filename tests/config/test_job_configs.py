"""Configs of a sweep's jobs equal those that Hydra composes for each job by itself."""

from __future__ import annotations

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from hydraprune.config.job_configs import JobConfigs

JOBS = (
    ("seed=0",),
    ("seed=3", "pattern=2:4"),
    ("seed=3", "pattern=2:4", "optimizer.lr=0.1"),
    ("pattern=2:4", "+optimizer.foreach=true", "~optimizer.fused"),
    ("demo_matrix=4x1", "seed=1"),
    ("demo_matrix=4x1", "seed=2", "training.epochs=${recipe.epochs}", "dense.overrides=['training.epochs=1']"),
    ("model=tiny", "task=toy", "pattern=mixed", "pattern.parts.ffn.target_sparsity=0.5", "sweep=mine"),
    ("hydra.sweep.subdir=mine/${seed}", "seed=4"),
    ("seed=5", "seed=6"),
)


@pytest.fixture
def job_configs() -> JobConfigs:
    loader = GlobalHydra.instance().config_loader()
    words = ["hydra/launcher=basic"]
    master = loader.load_configuration("config", words, RunMode.MULTIRUN)
    return JobConfigs(loader, master)


@pytest.mark.parametrize("words", JOBS, ids=" ".join)
def test_a_job_has_the_config_that_hydra_gives_it(words: tuple[str, ...], job_configs: JobConfigs) -> None:
    expected = job_configs._load(job_configs._master, list(words))
    for _ in range(2):  # the second time from the shared composition
        config = job_configs(words)
        HydraConfig.instance().set_config(config)
        assert OmegaConf.to_container(config) == OmegaConf.to_container(expected)


def test_jobs_do_not_share_values(job_configs: JobConfigs) -> None:
    first, second = job_configs(("seed=1",)), job_configs(("seed=2",))
    assert (first.seed, second.seed, job_configs(()).seed) == (1, 2, 0)


@pytest.mark.parametrize("word", ["seeds=1", "optimizer.lrr=1", "~nothing", "model=nothing"])
def test_overrides_that_do_not_fit_raise_as_in_hydra(word: str, job_configs: JobConfigs) -> None:
    with pytest.raises(HydraException) as expected:
        job_configs._load(job_configs._master, [word])
    with pytest.raises(HydraException) as found:
        job_configs((word,))
    assert str(found.value) == str(expected.value)
