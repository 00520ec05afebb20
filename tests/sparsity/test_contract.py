"""Properties of every criterion, schedule and pattern. Every file of conf/ is tested, without being listed here."""

from __future__ import annotations

import copy
import importlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from torch import Tensor, nn

from hydraprune.config import instantiate
from hydraprune.config.composition import conf_dir, resolved
from hydraprune.runs.resolvers import register
from hydraprune.sparsity import Criterion, Family, Plans, Pruner, SparsityError, SrSte, Unscored, attach

STEPS = 16
TIMES = ["scheduler.warmup=4", "scheduler.cooldown=3", "scheduler.frequency=3"]

# Declared: under these, what is pruned may return; under all others masks are nested.
REVIVES = {"gradient", "rigl", "movement", "soft_movement", "platon", "sr_ste"}
# Not made by scoring while training: tested with what they need.
APART = {"none", "wanda", "sparse_gpt", "retrain_free"}
# Sixteen steps are few, so that what is learned must be learned quickly.
WORDS = {"soft_movement": ["pruner.penalty=4e-3"]}
REFUSED = {("rigl", "2of4"), ("rigl", "nm")}


def files_of(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def trains(pruner: str) -> bool:
    """Whether conf/pruner/<pruner>.yaml scores while training."""
    node = OmegaConf.load(conf_dir() / "pruner" / f"{pruner}.yaml")
    target = str(node.get("pruner", node)["_target_"])  # some set other groups too
    module, _, word = target.rpartition(".")
    kind = getattr(importlib.import_module(module), word)
    return isinstance(kind, type) and issubclass(kind, (Criterion, SrSte)) and kind is not Unscored


PRUNERS = [name for name in files_of("pruner") if name not in APART]
SCHEDULERS = [name for name in files_of("scheduler") if name != "none"]
PATTERNS = [name for name in files_of("pattern") if name not in ("dense", "lock", "parts")]
PAIRS = [(pruner, pattern) for pruner in PRUNERS for pattern in PATTERNS if (pruner, pattern) not in REFUSED]
# A block of several rows, single weights of groups, and units too large for a Fisher block of their own.
MAIN = [pair for pair in PAIRS if pair[1] in ("4x1", "2of4", "1xchannel")]


def test_every_pruner_is_tested_here_or_needs_more() -> None:
    assert all(trains(pruner) for pruner in PRUNERS)
    assert not any(trains(pruner) for pruner in APART & set(files_of("pruner")))
    assert set(PRUNERS) >= REVIVES


# A small encoder, and its training ----------------------------------------------------------------

FAMILY = Family(
    "small",
    {r: [rf"layer\.\d+\.{r}"] for r in ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")},
    heads=4,
)


class Encoder(nn.Module):
    """One layer with a weight of each role, registered in the order given."""

    def __init__(self, order: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        sides = dict.fromkeys(("query", "key", "value", "attention_output"), (16, 16))
        sides |= {"ffn_in": (16, 32), "ffn_out": (32, 16)}
        made = {role: nn.Linear(*side) for role, side in sides.items()}
        self.layer = nn.ModuleList([nn.ModuleDict(dict(list(made.items())[::order]))])

    def forward(self, inputs: Tensor) -> Tensor:
        parts = self.layer[0]
        assert isinstance(parts, nn.ModuleDict)
        mixed = torch.tanh(parts["query"](inputs) * parts["key"](inputs)) + parts["value"](inputs)
        hidden: Tensor = inputs + parts["attention_output"](mixed)
        after: Tensor = parts["ffn_out"](torch.tanh(parts["ffn_in"](hidden)))
        return hidden + after


@cache
def composed(*words: str) -> Plans:
    """The plans that the command line would make of these words."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", ["model=tiny", "task=toy", *words], return_hydra_config=True)
        made = instantiate.plans(resolved(config))
    GlobalHydra.instance().clear()
    return made


def plans_of_words(pruner: str, pattern: str, *words: str) -> Plans:
    """Those of a pattern's file and a pruner's, put together here: composing takes longer than the training."""
    plan = composed("pattern=4x1", f"pruner={pruner}", *(words or TIMES), *WORDS.get(pruner, [])).parts["4x1"]
    parts = composed(f"pattern={pattern}").parts
    return Plans(pattern, {n: replace(p, criterion=plan.criterion, schedule=plan.schedule) for n, p in parts.items()})


@dataclass
class Training:
    """A model, its pruners and its optimizer, step by step."""

    plans: Plans
    order: int = 1
    dtype: torch.dtype = torch.float32
    pass_optimizer: bool = True  # to the pruners
    model: nn.Module = field(init=False)
    pruners: Sequence[Pruner] = field(init=False)

    def __post_init__(self) -> None:
        self.model = Encoder(self.order).to(self.dtype)
        self.pruners = attach(self.model, self.plans.parts, FAMILY, STEPS)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, weight_decay=0.1)

    def run(self, steps: range, after: Callable[[int], None] = lambda step: None) -> Training:
        optimizer = self.optimizer if self.pass_optimizer else None
        if steps.start == 0:
            for pruner in self.pruners:
                pruner.project(0, optimizer)
            after(0)
        for step in steps:
            generator = torch.Generator().manual_seed(1000 + step)
            inputs, targets = (torch.randn(8, 16, generator=generator).to(self.dtype) for _ in range(2))
            self.optimizer.zero_grad()
            (self.model(inputs) - targets).square().mean().backward()
            for pruner in self.pruners:
                pruner.observe(step)
            self.optimizer.step()
            for pruner in self.pruners:
                pruner.project(step + 1, optimizer)
            after(step + 1)
        return self

    @property
    def masks(self) -> dict[str, Tensor]:
        return {name: mask for pruner in self.pruners for name, mask in pruner.masks.items()}

    @property
    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruners": [pruner.state_dict() for pruner in self.pruners],
        }

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for pruner, own in zip(self.pruners, state["pruners"], strict=True):
            pruner.load_state_dict(own)


def check_masks(training: Training) -> None:
    """Masks are of whole units, as many as the pruner counts; masked weights are zero."""
    weights = dict(training.model.named_parameters())
    for pruner in training.pruners:
        for name, mask in pruner.masks.items():
            assert mask.dtype == torch.bool
            assert not bool(weights[name][~mask].any()), name
        for structures, units in pruner.pools:
            if not all(m.weight.name in pruner.masks for s in structures for m in s.members):
                continue
            for member in (m for s in structures for m in s.members):
                assert member.pattern.legal(member.weight.view(pruner.masks[member.weight.name]))
            assert sum(int(s.empty(pruner.masks).sum()) for s in structures) == units.pruned <= units.target


def asked(pruner: Pruner, total: int, update: int) -> int:
    """Units that the schedule asks of a pool at an update, from none before training."""
    target, share = pruner.plan.selection.target_sparsity, pruner.plan.pattern.share
    if update == pruner.updates.last:
        return int(total * Fraction(str(target)) / share)
    start, last = pruner.updates.start, pruner.updates.last
    ratio = pruner.updates.schedule.curve((update - start) / (last - start), 0.0, float(target))
    return int(total * ratio / share)


def check_counts(training: Training, step: int) -> None:
    """Between updates nothing changes in number; at one, pools hold what the schedule asks or scores let go."""
    for pruner in training.pruners:
        update = max((u for u in range(step + 1) if pruner.updates.due(u)), default=None)
        for _, units in pruner.pools:
            wanted = 0 if update is None else asked(pruner, units.total, update)
            by_scores = pruner.updates.schedule.by_scores and update != pruner.updates.last
            # The last bit of a float product may truncate to one unit less.
            assert units.pruned <= units.target if by_scores else abs(units.pruned - wanted) <= 1, (step, units)
            if update == pruner.updates.last:
                assert units.pruned == units.target == wanted


def conforms(training: Training, revives: bool) -> None:
    """Train to the end, looking after every step."""
    before: list[tuple[dict[str, Tensor], list[int]]] = [({}, [0] * 99)]
    plain = all(pruner.updates.due(0) is False for pruner in training.pruners)

    def look(step: int) -> None:
        check_masks(training)
        check_counts(training, step)
        masks, old = copy.deepcopy(training.masks), before[-1][0]
        counts = [units.pruned for pruner in training.pruners for _, units in pruner.pools]
        assert all(now >= earlier for now, earlier in zip(counts, before[-1][1], strict=False)) or step == 0
        if not revives:
            assert all(not bool((masks[name] & ~mask).any()) for name, mask in old.items()), step
            zeros = sum(int((p == 0).sum()) for n, p in training.model.named_parameters() if n in masks)
            assert zeros == sum(pruner.zeros for pruner in training.pruners)
        before.append((masks, counts))

    training.run(range(STEPS), look)
    assert not plain or not before[1][0]
    assert len(training.masks) > 0
    for pruner in training.pruners:
        state = pruner.state_dict()
        assert state.get("memory", {}) == {}
        assert state.get("dense", {}) == {}


# What all keep to ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("pruner", "pattern"), PAIRS)
def test_every_criterion_with_every_pattern(pruner: str, pattern: str) -> None:
    conforms(Training(plans_of_words(pruner, pattern)), pruner in REVIVES)


@pytest.mark.parametrize("pruner", ["magnitude", "snip_momentum", "soft_movement", "rigl", "sr_ste"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedules(scheduler: str, pruner: str) -> None:
    times = TIMES
    if scheduler == "at_start":
        if pruner not in ("magnitude", "sr_ste"):
            with pytest.raises(SparsityError, match=r"give a warm-up|scheduler=threshold"):
                Training(plans_of_words(pruner, "4x1", "scheduler=at_start"))
            return
        times = []
    if scheduler == "threshold" and pruner != "soft_movement":
        with pytest.raises(SparsityError, match="scheduler=threshold: is for scores that are learned"):
            Training(plans_of_words(pruner, "4x1", "scheduler=threshold", *TIMES))
        return
    plans = plans_of_words(pruner, "4x1", f"scheduler={scheduler}", *times)
    assert type(plans.parts["4x1"].schedule).__name__.lower() in (scheduler, "oneshot")
    conforms(Training(plans), pruner in REVIVES)


@pytest.mark.parametrize(("pruner", "pattern"), sorted(REFUSED))
def test_pairs_that_do_not_fit_are_refused(pruner: str, pattern: str) -> None:
    with pytest.raises(SparsityError, match="use a block or channel pattern"):
        Training(plans_of_words(pruner, pattern))


@pytest.mark.parametrize(("pruner", "pattern"), MAIN)
def test_a_resumed_run_is_the_same_bit_for_bit(pruner: str, pattern: str) -> None:
    plans = plans_of_words(pruner, pattern)
    whole = Training(plans).run(range(STEPS))
    cut = 6 if pattern == "4x1" else 9  # between two updates, or just before one
    saved = io.BytesIO()
    torch.save(Training(plans).run(range(cut)).state, saved)
    saved.seek(0)
    second = Training(plans)
    second.load(torch.load(saved))
    second.run(range(cut, STEPS))
    assert second.masks.keys() == whole.masks.keys()
    assert all(torch.equal(second.masks[name], mask) for name, mask in whole.masks.items())
    weights = dict(second.model.named_parameters())
    assert all(torch.equal(weights[name], weight) for name, weight in whole.model.named_parameters())


@pytest.mark.parametrize(("pruner", "pattern"), [*MAIN, ("snip_momentum", "heads"), ("snip_momentum", "mixed")])
def test_the_order_of_layers_changes_nothing(pruner: str, pattern: str) -> None:
    plans = plans_of_words(pruner, pattern)
    one, other = Training(plans).run(range(STEPS)), Training(plans, order=-1).run(range(STEPS))
    first, second = ([w.name for p in training.pruners for w in p.weights] for training in (one, other))
    assert pattern == "heads" or first != second
    assert one.masks.keys() == other.masks.keys()
    assert all(torch.equal(other.masks[name], mask) for name, mask in one.masks.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("pruner", "pattern"), MAIN)
def test_other_precisions(pruner: str, pattern: str, dtype: torch.dtype) -> None:
    training = Training(plans_of_words(pruner, pattern), dtype=dtype).run(range(STEPS))
    check_masks(training)
    check_counts(training, STEPS)
    assert all(weight.dtype == dtype for weight in training.model.parameters())
    assert all(bool(weight.isfinite().all()) for weight in training.model.parameters())


@pytest.mark.parametrize("pruner", PRUNERS)
def test_the_optimizer_may_be_left_out(pruner: str) -> None:
    conforms(Training(plans_of_words(pruner, "4x1"), pass_optimizer=False), pruner in REVIVES)


# PLATON's average deviation must lag behind its average for that: shown by hand in test_criteria_independent.
@pytest.mark.parametrize("pruner", sorted(REVIVES - {"platon"}))
def test_criteria_declared_to_revive_can(pruner: str) -> None:
    """Else its masks would be nested, and the tests above should say so."""
    masks: list[dict[str, Tensor]] = []
    words = ("scheduler=hold", "scheduler.warmup=1", "scheduler.frequency=1", "scheduler.cooldown=0")
    training = Training(plans_of_words(pruner, "1x1", *words))
    training.run(range(STEPS), lambda step: masks.append(copy.deepcopy(training.masks)))
    back = sum(int((masks[i + 1][n] & ~m).sum()) for i in range(STEPS) for n, m in masks[i].items())
    assert back > 0
