"""Training of a sharded model beside a whole one, in several processes.

`python sharded_training.py RANK COUNT FOLDER all|save|load`
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from sparsity_helpers import PLAIN, plan_of, pruner_of
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from hydraprune.sparsity import (
    Block,
    BlockMask,
    Exp,
    Fisher,
    Gradient,
    Linear,
    Magnitude,
    Movement,
    NofM,
    OneShot,
    Platon,
    Pruner,
    Snip,
    SnipMomentum,
    SparsityError,
    attach,
    custom,
    distributed_state_dict,
    holds_pattern,
    layer_sparsity,
    load_distributed_state_dict,
)

STEPS, WIDTH = 12, 24
RAMP = Linear(warmup=2, frequency=3)


def model(seed: int = 0) -> nn.Sequential:
    """Layers whose rows 2 and 3 processes can share in blocks of four."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, 48), nn.Tanh(), nn.Linear(48, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 72))


def tied(seed: int = 0) -> nn.Sequential:
    """The same with few different weights: most units tie."""
    result = model(seed)
    for weight in result.parameters():
        weight.data = (weight.data * 8).round() / 8
    return result


def constant(seed: int = 0) -> nn.Sequential:
    """The same with one weight everywhere."""
    result = model(seed)
    for weight in result.parameters():
        weight.data.fill_(0.25)
    return result


def sparse(seed: int = 0) -> nn.Sequential:
    """The same with zeros in it, whole blocks and single weights."""
    result = model(seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in (result[0], result[2], result[4]):
        rows, columns = layer.weight.shape
        blocks = torch.rand(rows // 4, columns, generator=generator) < 0.2
        layer.weight.data[blocks.repeat_interleave(4, 0)] = 0
        layer.weight.data[torch.rand(rows, columns, generator=generator) < 0.02] = 0
    return result


def odd(seed: int = 0) -> nn.Sequential:
    """Layers of which the last process holds fewer rows than the others."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, 52), nn.Tanh(), nn.Linear(52, 5), nn.Tanh(), nn.Linear(5, 7))


PATTERNS = [Block(1, 1), Block(4, 1), Block(4, 2), Block(1, "channel"), NofM(2, 4), NofM(1, 4)]
CRITERIA = [Magnitude(), Gradient(), Snip(), SnipMomentum(), Movement(), Platon(), Fisher(), BlockMask()]


def cases() -> Iterator[tuple[str, Callable[[], nn.Sequential], Any, Any]]:
    """(name, model, plans, criterion)."""
    for pattern, criterion in itertools.product(PATTERNS, CRITERIA):
        yield f"{pattern.name} {criterion.name}", model, custom(pattern, 0.7 * float(pattern.share)), criterion
    for make, pattern in itertools.product((tied, constant, sparse), PATTERNS[:5]):
        share = 0.7 * float(pattern.share)
        for scope in ("global", "local", "erk"):
            yield f"{make.__name__} {pattern.name} {scope}", make, custom(pattern, share, scope, cap=1.0), Magnitude()
        yield f"{make.__name__} {pattern.name}", make, custom(pattern, share, cap=1.0), SnipMomentum()
    for cap, floor in ((0.75, 0.0), (0.98, 0.3), (0.75, 0.6)):
        yield f"cap {cap}, floor {floor}", model, custom(Block(4, 1), 0.7, cap=cap, floor=floor), SnipMomentum()
    for pattern, criterion in itertools.product((Block(1, 1), Block(1, "channel")), CRITERIA):
        yield f"odd {pattern.name} {criterion.name}", odd, custom(pattern, 0.5 * float(pattern.share)), criterion
    yield "weights", model, custom(Block(1, "channel"), 0.6, "weights"), Magnitude()


def sharded(whole: nn.Module) -> nn.Module:
    """A copy, of which this process holds some rows."""
    copy = deepcopy(whole)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    return fully_shard(copy, mesh=mesh)  # type: ignore[return-value]


def part(tensor: Tensor) -> Tensor:
    """The rows of a whole tensor that this process holds."""
    pieces = tensor.chunk(distributed.get_world_size())
    rank = distributed.get_rank()
    return pieces[rank] if rank < len(pieces) else tensor[:0]


def same_masks(one: Pruner, other: Pruner) -> bool:
    """Whether a whole and a sharded pruner mask the same weights."""
    ours, theirs = one.masks_in_force, other.masks_in_force
    return ours.keys() == theirs.keys() and all(torch.equal(part(ours[name]), theirs[name]) for name in ours)


def loss_of(found: nn.Module, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 + step)
    outputs = found(torch.randn(8, WIDTH, generator=generator))
    loss: Tensor = (outputs - torch.randn(outputs.shape, generator=generator)).square().mean()
    return loss


class Pair:
    """A whole model and a sharded copy that are trained with the same gradients."""

    def __init__(self, name: str, make: Callable[[], nn.Sequential], plans: Any, criterion: Any) -> None:
        self.name = name
        self.models = [whole := make(), sharded(whole)]
        self.pruners = [pruner_of(found, plans, criterion, RAMP, STEPS) for found in self.models]
        self.optimizers = [torch.optim.SGD(found.parameters(), lr=0.05) for found in self.models]

    def begin(self) -> None:
        for pruner, optimizer in zip(self.pruners, self.optimizers, strict=True):
            pruner.project(0, optimizer)

    def step(self, step: int, sides: tuple[int, ...] = (0, 1)) -> None:
        """Take a step, and compare masks and counts if both sides do."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss_of(self.models[0], step).backward()
        for ours, theirs in zip(*(found.parameters() for found in self.models), strict=True):
            assert isinstance(theirs, DTensor)
            assert ours.grad is not None
            theirs.grad = distribute_tensor(ours.grad, theirs.device_mesh, theirs.placements)
        for side in sides:
            self.pruners[side].observe(step)
            self.optimizers[side].step()
            self.pruners[side].project(step + 1, self.optimizers[side])
        if len(sides) > 1:
            self.compare(step)

    def compare(self, step: int) -> None:
        one, two = self.pruners
        assert same_masks(one, two), f"{self.name}: masks differ after step {step}"
        assert one.zeros == two.zeros, f"{self.name}: {one.zeros} and {two.zeros} zeros after step {step}"

    def end(self) -> None:
        """Compare weights, counts and what is said of the pattern."""
        one, two = self.pruners
        for ours, theirs in zip(*(found.parameters() for found in self.models), strict=True):
            assert torch.equal(part(ours.detach()), theirs.to_local()), self.name  # type: ignore[operator]
        assert [units for _, units in one.pools] == [units for _, units in two.pools], self.name
        assert one.zeros, self.name
        pairs = [holds_pattern(p, dict(m.named_parameters())) for p, m in zip(self.pruners, self.models, strict=True)]
        assert pairs[0] == pairs[1], self.name
        assert pairs[0][0], self.name


def train_alike(*case: Any) -> None:
    """Train with the same gradients, and compare after every step."""
    pair = Pair(*case)
    pair.begin()
    for step in range(STEPS):
        pair.step(step)
    pair.end()


CUT = 7


def state_of(pair: Pair) -> dict[str, Any]:
    """What a checkpoint holds of the sharded side."""
    return {"model": pair.models[1].state_dict(), "pruner": distributed_state_dict(pair.pruners[1])}  # type: ignore[arg-type]


def saved_cases() -> Iterator[tuple[str, Any, Any, Any]]:
    """Cases whose states go through a checkpoint."""
    for pattern, criterion in itertools.product((Block(4, 1), NofM(2, 4), Block(1, "channel")), CRITERIA):
        yield f"{pattern.name} {criterion.name}", model, custom(pattern, 0.7 * float(pattern.share)), criterion
    yield "sparse", sparse, custom(Block(4, 1), 0.7, cap=1.0), SnipMomentum()


def save(folder: Path) -> int:
    """Train up to a step and save a checkpoint of every case."""
    for number, case in enumerate(saved_cases()):
        pair = Pair(*case)
        pair.begin()
        for step in range(CUT):
            pair.step(step)
        checkpoint.save(state_of(pair), checkpoint_id=str(folder / str(number)))
    return number + 1


def load(folder: Path) -> int:
    """Go on from the checkpoints of `save`, by other processes than those that wrote them."""
    for number, case in enumerate(saved_cases()):
        pair = Pair(*case)
        pair.pruners[0].project(0)
        for step in range(CUT):
            pair.step(step, sides=(0,))
        state = state_of(pair)
        checkpoint.load(state, checkpoint_id=str(folder / str(number)))
        pair.models[1].load_state_dict(state["model"])
        load_distributed_state_dict(pair.pruners[1], state["pruner"])  # type: ignore[arg-type]
        pair.compare(CUT)
        for step in range(CUT, STEPS):
            pair.step(step)
        pair.end()
    return number + 1


def train_by_itself() -> None:
    """Train a sharded model by its own gradients, as a loop does: targets are met exactly, and zeros stay."""
    other = sharded(model())
    plan = plan_of(custom(Block(4, 1), 0.9), SnipMomentum(), Exp(warmup=2, frequency=3))
    (pruner,) = attach(other, {"4x1": plan}, PLAIN, STEPS)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-2)
    pruner.project(0)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(other, step).backward()
        pruner.observe(step)
        optimizer.step()
        pruner.project(step + 1, optimizer)
    ((_, units),) = pruner.pools
    assert units.pruned == units.target
    weights = dict(other.named_parameters())
    local = sum(int((weights[weight.name].to_local() == 0).sum()) for weight in pruner.weights)  # type: ignore[attr-defined]
    assert pruner.shards.total(local) == pruner.zeros == 4 * units.target


def all_cases(folder: Path) -> int:
    """Compare every case with a whole model."""
    tried = 0
    for case in cases():
        train_alike(*case)
        tried += 1
    train_by_itself()
    # Pruned at once, before any step.
    pruners = [pruner_of(m, custom(Block(4, 1), 0.5), Magnitude(), OneShot(), 1) for m in (tied(), sharded(tied()))]
    for pruner in pruners:
        pruner.project(0)
    assert same_masks(*pruners)
    refuse_cut_blocks()
    use_after_evaluations()
    refuse_other_states()
    return tried


def refuse_cut_blocks() -> None:
    """Blocks of four on both sides of a border are refused by name, and a process without rows."""
    few = fully_shard(nn.Sequential(nn.Linear(8, 1)), mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))
    if distributed.get_world_size() > 1:
        columns = fully_shard(model(), mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))
        with pytest.raises(SparsityError, match=r"0\.weight is sharded, and is cut after every"):
            pruner_of(columns, custom(Block("channel", 1), 0.5), Magnitude(), OneShot(), 1)  # type: ignore[arg-type]
        with pytest.raises(SparsityError, match=r"of its 1 rows the last of . processes holds none"):
            pruner_of(few, custom(Block(1, 1), 0.5), Magnitude(), OneShot(), 1)  # type: ignore[arg-type]
    layer = nn.Sequential(nn.Linear(8, 20))
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    found = fully_shard(layer, mesh=mesh)
    cut = -(-20 // distributed.get_world_size())
    if cut == 20:
        return
    with pytest.raises(
        SparsityError, match=f"0.weight is sharded, and is cut after every {cut} rows, in the middle of"
    ):
        pruner_of(found, custom(Block(4, 1), 0.5), Magnitude(), OneShot(), 1)  # type: ignore[arg-type]


def use_after_evaluations() -> None:
    """A forward pass without a backward leaves whole weights in the root; all copes with it."""
    found = sharded(model())

    def evaluate() -> None:
        with torch.no_grad():
            loss_of(found, 0)

    evaluate()
    pruner = pruner_of(found, custom(Block(4, 1), 0.5), SnipMomentum(), RAMP, STEPS)
    evaluate()
    pruner.project(0)
    optimizer = torch.optim.SGD(found.parameters(), lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(found, step).backward()
        pruner.observe(step)
        optimizer.step()
        pruner.project(step + 1)
        evaluate()
    if distributed.get_world_size() > 1:
        with pytest.raises(SparsityError, match=r"reshard\(\)"):
            holds_pattern(pruner, dict(found.named_parameters()))
    found.reshard()  # type: ignore[operator]
    assert holds_pattern(pruner, dict(found.named_parameters())) == (True, pruner.pools[0][1].target)
    with pytest.raises(SparsityError, match="is sharded; load the full state dict"):
        layer_sparsity(found)


def refuse_other_states() -> None:
    """The state of another plan is refused by what differs."""
    state = distributed_state_dict(pruner_of(sharded(model()), custom(Block(4, 1), 0.5), SnipMomentum(), RAMP, STEPS))  # type: ignore[arg-type]
    for plans, criterion in ((custom(NofM(2, 4), 0.5), SnipMomentum()), (custom(Block(4, 1), 0.5), Platon())):
        other = pruner_of(sharded(model()), plans, criterion, RAMP, STEPS)
        with pytest.raises(SparsityError, match=r"does not fit: its (pattern|criterion)"):
            load_distributed_state_dict(other, state)  # type: ignore[arg-type]
        with pytest.raises(SparsityError, match="is no distributed state"):
            load_distributed_state_dict(other, other.state_dict())  # type: ignore[arg-type]


def main() -> None:
    """Run one of the parts in one of several processes."""
    rank, count, folder, what = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / f"store-{what}-{count}"), count)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=count)
    tried = {"all": all_cases, "save": save, "load": load}[what](folder)
    distributed.destroy_process_group()
    print(f"{tried} cases agree")


if __name__ == "__main__":
    main()
