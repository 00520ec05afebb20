"""The race of training steps: workers that take turns, and what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from earlier_build import Build
from material import RECIPES, TARGET

HERE = Path(__file__).parent


class Side(NamedTuple):
    """A column of the tables; `build` is `published`, `before` or `now`."""

    build: str
    precision: str

    def __str__(self) -> str:
        return f"{self.build} {self.precision}"


PUBLISHED = Side("published", "fp32")
SIDES = (PUBLISHED, *(Side(build, precision) for build in ("before", "now") for precision in ("fp32", "bf16")))


@dataclass(frozen=True)
class Case:
    """A model and a task in folders, and how the processes compute.

    Args:
        model, task: names.
        material: holds folders of these names.
        examples: of the training split.
        overrides: more of them for the side `now`.
    """

    model: str
    task: str
    material: Path
    examples: int
    threads: int
    device: str
    overrides: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """As it is in headings."""
        return f"{self.model}, {self.task}, {self.threads} thread{'s' * (self.threads > 1)}"

    @property
    def steps_per_epoch(self) -> int:
        """Steps of 16 examples."""
        return -(-self.examples // 16)

    @property
    def ramp(self) -> int:
        """Steps between the first mask update and the cooldown."""
        recipe = RECIPES[self.task]
        return (recipe.epochs - recipe.warmup - recipe.cooldown) * self.steps_per_epoch

    def words(self, side: Side, folder: Path, frequency: int) -> list[str]:
        """Overrides of a run of the published recipe.

        Args:
            folder: for the cache and the run.
            frequency: steps between mask updates.
        """
        return [
            f"task={self.task}",
            f"task.path={self.material / self.task}",
            "model=bert_mini",
            f"model.path={self.material / self.model}",
            f"dense.source={self.material / self.model}",
            "pattern=4x1",
            f"pattern.target_sparsity={TARGET}",
            f"recipe.frequency={frequency}",
            f"training.precision={side.precision}",
            f"training.device={self.device}",
            f"runtime.threads={self.threads}",
            f"cache.dir={folder / 'cache'}",
            f"run.root={folder / 'outputs'}",
            *(self.overrides if side.build == "now" else ()),
        ]


def environment_of(build: Build, side: Side) -> dict[str, str]:
    """Environment variables of a side's process."""
    from hydraprune.utils.system import SPINS

    found = {**build.environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if side.build != "published":
        found.setdefault("GOMP_SPINCOUNT", str(SPINS))  # as the command line does
    return found


class Worker:
    """A side, running in its own process."""

    def __init__(self, side: Side, case: Case, build: Build, folder: Path, steps: int, ramp: bool) -> None:
        folder.mkdir()
        # At least two updates, also of a task that was cut short.
        frequency = max(1, min(RECIPES[case.task].frequency, case.ramp // 2))
        order = {
            "side": side.build,
            "model": str(case.material / case.model),
            "task": case.task,
            "data": str(case.material / case.task),
            "words": case.words(side, folder, frequency),
            "package": str(build.package),
            "threads": case.threads,
            "steps": steps,
            "ramp": ramp,
            "device": case.device,
            "born": time.time(),
        }
        self.log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            [build.python, str(HERE / "sides.py"), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment_of(build, side),
        )
        self._answer()

    def ask(self, name: str, *arguments: Any) -> Any:
        """The answer to a command of `sides.Side`."""
        assert self.process.stdin is not None
        print(json.dumps([name, *arguments]), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(Path(self.log.name).read_text(encoding="utf-8")[-3000:])
        return json.loads(line)

    def end(self) -> None:
        """Wait for the end of the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


def race(
    case: Case,
    sides: Sequence[Side],
    builds: dict[str, Build],
    densities: Sequence[float],
    pairs: int,
    steps: int,
    ramp: bool,
) -> dict[str, Any]:
    """All figures of a case; sides and densities are keys as text.

    Args:
        pairs: turns of each side at each density.
        steps: of a turn.
        ramp: at densities below 1 the steps are those before the last mask update; otherwise those after it.
    """
    found: dict[str, Any] = {"model": case.model, "task": case.task, "threads": case.threads, "densities": {}}
    with tempfile.TemporaryDirectory(prefix="race-") as name:
        workers = {
            side: Worker(side, case, builds.get(side.build, builds["now"]), Path(name, str(side)), steps, ramp)
            for side in sides
        }
        found["about"] = {str(side): worker.ask("about") for side, worker in workers.items()}
        ours = [side for side in sides if side != PUBLISHED]
        for density in densities:
            part: dict[str, Any] = {"pairs": []}
            # In the ramp masks are a little denser than at its end; the published loop's are made as dense.
            part["density"] = {str(side): workers[side].ask("prune", density) for side in ours}
            if PUBLISHED in workers:
                equal = next(iter(part["density"].values()), density)
                part["density"][str(PUBLISHED)] = workers[PUBLISHED].ask("prune", equal)
            for number in range(pairs):
                first = number % len(sides)  # nobody always follows the same side
                turns = {side: workers[side].ask("chunk", number) for side in (*sides[first:], *sides[:first])}
                part["pairs"].append({str(side): turns[side] for side in sides})
            part["memory"] = {str(side): worker.ask("memory") for side, worker in workers.items()}
            part["parts"] = {str(side): workers[side].ask("parts", 77) for side in ours}
            if density < 1:
                part["update"] = {str(side): worker.ask("update") for side, worker in workers.items()}
            found["densities"][str(density)] = part
        for worker in workers.values():
            worker.end()
    return found


def interpreter(build: Build) -> str:
    """A line about a build."""
    return f"{build.name}: commit {build.commit}, {build.package}" + (
        "" if build.python == sys.executable else f" ({build.python})"
    )
