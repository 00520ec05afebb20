"""Random command lines: each runs as asked, or is refused in one line that names a key, without files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from fuzz_commands import PRUNED, TINY, Command, commands
from fuzz_oracle import Workplace
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, settings

# The models that commands start from are made once.
pytestmark = pytest.mark.xdist_group("fuzz")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    GlobalHydra.instance().clear()
    yield Workplace(tmp_path_factory.mktemp("fuzz"))
    GlobalHydra.instance().clear()
    torch.set_num_threads(1)


@settings(max_examples=30, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(commands())
def test_a_random_command_runs_as_asked_or_is_refused_in_one_line(fuzzed: Workplace, words: Command) -> None:
    fuzzed.judge(words)


# Earlier findings, now fixed: overrides -> parts of the message; () for those that run.
FOUND: dict[str, tuple[str, ...]] = {
    "distill.weight=${recipe.distill_weight}": (),  # in the report as typed
    "optimizer.lr=${oc.env:NOTHING}": ("NOTHING", "optimizer.lr"),
    "model.max_positions=a=b": ("model.max_positions=a=b", "cannot be read", "model.max_positions='a=b'"),
    "pattern.layers.roles=[ffn": ("pattern.layers.roles=[ffn", "close quotes and brackets"),
    "pattern.layers=[1]": ("pattern.layers=[1]: ", "conf/"),
    "~pattern.layer": ("~pattern.layer: there is no such key",),
    "dense=5": ("dense=5", "group of keys"),
    "~dense": ("dense=null", "group of keys"),
    "~seed": ("seed: a value is needed",),
    "~task.name": ("task.name: a value is needed",),
    "~recipe.source": ("recipe.source: a value is needed",),
    "~training.precision ~training.device": (),
    "seed=${seed}": ("seed: ", "ecursive interpolation"),
    "~training._target_": ("training._target_=null", "must name a class"),
    "task.train_examples=1000000000000": ("task.train_examples=1000000000000", "at most 1000000"),
    "model.layers=1000000000000": ("model.layers=1000000000000", "at most 256"),
    "pattern=mixed ~pattern.parts.ffn._target_": ("pattern.parts.ffn._target_=null", "must name"),
    "pattern=mixed ~pattern.parts.ffn.layers._target_": ("pattern.parts.ffn.layers._target_=null",),
    "~pattern.layers._target_": ("pattern.layers._target_=null",),
    "model.headsx='a\nb'": ("model.headsx='a b'", "did you mean model.heads"),
    "pattern=2of4 pattern.target_sparsity=0.1 dense.source=start/sparse/model": (
        "pattern.target_sparsity=0.1",
        "at zero when training starts",
    ),
    "pattern=lock": ("pattern=lock", "dense.source=auto"),
    "pattern=lock dense.source=start/dense/model": ("pattern=lock", "no zeros to keep"),
}


def test_a_diverging_training_is_an_error(fuzzed: Workplace) -> None:
    # Masked weights were NaN, and the run finished with a pattern that did not hold.
    outcome = fuzzed.judge((*TINY, *PRUNED, "optimizer.lr=1e30", "dense.source=start/dense/model"))
    assert outcome.kind == "stopped"


@pytest.mark.parametrize("typed", FOUND)
def test_earlier_findings_stay_fixed(typed: str, fuzzed: Workplace) -> None:
    outcome = fuzzed.judge((*TINY, *PRUNED, *typed.split(" ")))
    assert outcome.kind == ("refused" if FOUND[typed] else "ran")
    for part in FOUND[typed]:
        assert part in outcome.line
