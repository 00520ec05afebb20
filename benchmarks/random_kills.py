"""Kill runs at random moments, restart each until it ends, and compare them with uninterrupted runs.

    python benchmarks/random_kills.py --kills 200

Every run is a process that is killed with SIGKILL: at a random moment, or in a chosen short phase (while a checkpoint
is written or a mask is updated). At the end the following must be equal, bit for bit: every file of the run and of its
dense run, except for times, and the complete training state: weights, masks, criterion state, optimizer state and
random generators. Prints a table; the exit code is 1 if a run did not recover. Needs fork (Linux, macOS).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydraprune.runs.experiment import Experiment

# A run of seconds: 20 steps and a dense run of 5, dropout so that random numbers matter, a checkpoint every 3 steps.
SMALL = (
    *("model=tiny", "model.dropout=0.1", "task=toy", "task.train_examples=160", "task.evaluation_examples=64"),
    *("training.epochs=4", "training.batch_size=32", "training.log_every=3", "training.checkpoint_every=3"),
    *("dense.overrides=['training.epochs=1']", "cache.dir=cache", "run.root=outputs"),
)
GRADUAL = ("scheduler.warmup=3", "scheduler.cooldown=4", "scheduler.frequency=4")
RIGL = ("scheduler=hold", *GRADUAL)
STUDIES: dict[str, tuple[str, ...]] = {
    "4x1": (*GRADUAL, "pattern=4x1", "lr_scheduler=linear"),
    "2:4, accumulation": (*GRADUAL, "pattern=2:4", "training.accumulation=2", "training.batch_size=16"),
    "mixed, bf16": (*GRADUAL, "pattern=mixed", "training.precision=bf16"),
    "4x1, progressive, logits": (*GRADUAL, "pattern=4x1", "progressive=scores", "distill=logits"),
    "1xchannel, rigl": (*RIGL, "pattern=1xchannel", "pruner=rigl", "pattern.target_sparsity=0.5"),
    "2:4, sr_ste, sgd": ("pattern=2:4", "pruner=sr_ste", "scheduler.warmup=3", "scheduler.cooldown=4", "optimizer=sgd"),
    "heads, platon": (*GRADUAL, "pattern=heads", "pruner=platon", "pattern.target_sparsity=0.5"),
    "4x1, fisher, group lasso": (*GRADUAL, "pattern=4x1", "pruner=fisher", "regularizer=group_lasso"),
}
# What a run may be doing when it is killed; the first is anything else, such as setting up.
PHASES = ("other", "step", "mask update", "evaluation", "checkpoint", "teacher outputs", "model being saved")
_OFTEN = ("step", "mask update", "evaluation", "checkpoint")
_DENSE = 128
# Seconds after which a hanging run is ended.
_PATIENCE = 300
_SAID = "said"


@dataclass
class Outcome:
    """The outcome of one study.

    Args:
        phases: phase -> number of processes that were killed in it.
        differences: what was not equal at the end.
    """

    name: str
    phases: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """The number of processes that were killed."""
        return sum(self.phases.values())


def study(name: str, words: Sequence[str], kills: int, seed: int, folder: Path) -> Outcome:
    """Run once uninterrupted and once killed repeatedly, in two folders below `folder`."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from hydraprune.config.composition import conf_dir
    from hydraprune.runs.experiment import build_experiment
    from hydraprune.runs.resolvers import register

    register()

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        experiment = build_experiment(compose("config", [*SMALL, *words], return_hydra_config=True))
        return _study(name, experiment, kills, random.Random(f"{name} {seed}"), folder)


def _study(name: str, experiment: Experiment, kills: int, draw: random.Random, folder: Path) -> Outcome:
    outcome = Outcome(name)
    whole, cut = folder / "whole", folder / "cut"
    start = time.monotonic()
    with _inside(whole):
        if _watch(experiment, None) != "ended":
            outcome.differences.append(f"the uninterrupted run failed: {_last_words()}")
            return outcome
    length = time.monotonic() - start
    with _inside(cut):
        while outcome.kills < kills:
            # A third of them at a random moment.
            aim = draw.choice(PHASES[1:]) if draw.random() < 2 / 3 else None
            skip = draw.randrange(4) if aim in _OFTEN else 0
            end = _watch(experiment, _Aim(aim, draw.uniform(0, 0.7 * length), skip, draw.uniform(0, 0.004)))
            if end == "failed":
                outcome.differences.append(f"a run that was killed failed later: {_last_words()}")
                return outcome
            if end == "ended":
                outcome.differences += compare(whole, cut)
                shutil.rmtree(cut / "outputs")
                shutil.rmtree(cut / "cache")
            else:
                outcome.phases[end] += 1
        if _watch(experiment, None) != "ended":
            outcome.differences.append(f"the last start failed: {_last_words()}")
    outcome.differences += compare(whole, cut)
    return outcome


def _last_words() -> str:
    return Path(_SAID).read_text(encoding="utf-8").strip().splitlines()[-1]


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    folder.mkdir(parents=True)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@dataclass(frozen=True)
class _Aim:
    """When to kill: `late` seconds into the `skip`-th occurrence of a phase, or `after` seconds from the start."""

    phase: str | None
    after: float
    skip: int
    late: float


def _watch(experiment: Experiment, aim: _Aim | None) -> str:
    """Start a run in a new process; returns the phase in which it was killed, or `ended`, or `failed`."""
    place = mmap.mmap(-1, 1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(_PATIENCE)
            _run(experiment, place)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    start, seen, last = time.monotonic(), 0, -1
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "ended" if status == 0 else "failed"
        now = place[0] & ~_DENSE
        seen += now != last and PHASES[now] == (aim and aim.phase)
        last = now
        if aim is not None and (
            time.monotonic() - start > aim.after if aim.phase is None else seen > aim.skip and PHASES[now] == aim.phase
        ):
            time.sleep(aim.late)
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                return PHASES[place[0] & ~_DENSE] + ", dense run" * bool(place[0] & _DENSE)
            return "ended" if status == 0 else "failed"
        time.sleep(0.0003)


def _run(experiment: Experiment, place: mmap.mmap) -> None:
    """Run as the command does, storing the current phase in `place`."""
    from hydraprune.runs import run as runs
    from hydraprune.sparsity.pruners.gradual import Gradual
    from hydraprune.training import checkpoints, loop
    from hydraprune.training import teacher_cache as answers

    _tell(place)
    checkpoints.SHARE = 1.0
    for owner, name, phase in (
        (loop, "take_step", "step"),
        (Gradual, "_update", "mask update"),
        (loop, "evaluate", "evaluation"),
        (checkpoints, "write_state", "checkpoint"),
        (answers, "_write", "teacher outputs"),
        (runs, "save_model", "model being saved"),
    ):
        setattr(owner, name, _marked(getattr(owner, name), PHASES.index(phase), place))
    runs.fit = _noted(runs.fit, place)  # type: ignore[assignment]
    runs.execute(experiment)


def _tell(place: mmap.mmap) -> None:
    """Reset the phase, and redirect output to a file."""
    place[0] = 0
    said = os.open(_SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)


def _marked(call: Callable[..., Any], phase: int, place: mmap.mmap) -> Callable[..., Any]:
    def marked(*arguments: Any, **named: Any) -> Any:
        before = place[0]
        place[0] = phase | before & _DENSE
        try:
            return call(*arguments, **named)
        finally:
            place[0] = before

    return marked


def _noted(fit: Callable[..., Any], place: mmap.mmap) -> Callable[..., Any]:
    """`fit`, which also writes a hash of the training state after its last step."""
    from hydraprune.training import checkpoints
    from hydraprune.utils import tensor_io

    def noted(run: Any, *rest: Any) -> Any:
        place[0] = 0 if run.pruners else _DENSE
        progress = fit(run, *rest)
        state = checkpoints._state(run, progress)
        for pace in (state["sparse_steps"]["dense"], state["sparse_steps"]["sparse"]):
            del pace["seconds"]
        told, tensors = tensor_io.split_tensors(state)
        held = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        for name in sorted(tensors):
            held.update(name.encode() + bytes(tensor_io.bytes_of(tensors[name])))
        Path("sparse.held" if run.pruners else "dense.held").write_text(held.hexdigest())
        place[0] = 0
        return progress

    return noted


def compare(whole: Path, cut: Path) -> list[str]:
    """Files that differ, except for times, and files that only one side has."""
    sides = [{file.relative_to(side): file for file in _files(side)} for side in (whole, cut)]
    found = [f"only one side has {name}" for name in sorted(sides[0].keys() ^ sides[1].keys())]
    for name in sorted(sides[0].keys() & sides[1].keys()):
        if _contents(sides[0][name]) != _contents(sides[1][name]):
            found.append(f"{name} differs")
    return found


def _files(side: Path) -> Iterator[Path]:
    for file in side.rglob("*"):
        # train.log has dates, and mentions interruptions.
        inside = file.relative_to(side).parts
        if file.is_file() and inside[0] != "cache" and file.name not in ("train.log", ".lock", _SAID):
            yield file


def _contents(file: Path) -> bytes:
    if file.name != "report.json":
        return file.read_bytes()
    report = json.loads(file.read_text())
    return json.dumps({key: value for key, value in report.items() if key not in ("seconds", "sparse_gain")}).encode()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="number of kills in total (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(STUDIES), choices=list(STUDIES), metavar="STUDY")
    arguments = parser.parse_args()
    prepare()
    each, outcomes = -(-arguments.kills // len(arguments.only)), []
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(arguments.only):
            outcomes.append(study(name, STUDIES[name], each, arguments.seed, Path(folder) / str(number)))
            print(f"{name}: {outcomes[-1].kills} kills, {len(outcomes[-1].differences)} differences", file=sys.stderr)
    print(table(outcomes))
    print(f"\n{time.monotonic() - start:.0f} seconds, --seed {arguments.seed}")
    return 1 if any(outcome.differences for outcome in outcomes) else 0


def prepare() -> None:
    """Import what every child needs, once."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(1)

    from hydraprune.utils.hub_access import quiet_libraries

    quiet_libraries()


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table of the kills by phase, and of the recovered runs."""
    phases = sorted({phase for outcome in outcomes for phase in outcome.phases})
    lines = [f"| run | {' | '.join(phases)} | killed | recovered |", f"|---|{'---:|' * (len(phases) + 2)}"]
    for outcome in outcomes:
        counts = " | ".join(str(outcome.phases[phase]) for phase in phases)
        good = outcome.kills if not outcome.differences else "; ".join(outcome.differences)
        lines.append(f"| {outcome.name} | {counts} | {outcome.kills} | {good} |")
    sums = " | ".join(str(sum(outcome.phases[phase] for outcome in outcomes)) for phase in phases)
    good = sum(outcome.kills for outcome in outcomes if not outcome.differences)
    lines.append(f"| **all** | {sums} | {sum(outcome.kills for outcome in outcomes)} | {good} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
