"""Tables of the races, a column for every side, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from material import RECIPES, TARGET
from race import PUBLISHED, Case, Side

PARTS = ("forward", "backward", "optimizer", "score", "mask", "teacher", "batch", "rest")
# What a turn measured, and its unit.
KINDS = {"seconds": "ms", "cpu": "ms of processor time"}


class Table:
    """Lines of a table; a side without a text has an empty cell."""

    def __init__(self, sides: Sequence[Side]) -> None:
        self.sides = sides
        self.lines = ["", f"| | {' | '.join(map(str, sides))} |", "|---" * (1 + len(sides)) + "|"]

    def row(self, name: str, texts: Mapping[Side, str]) -> None:
        """Add a row."""
        self.lines.append(f"| {name} | {' | '.join(texts.get(side, '') for side in self.sides)} |")

    def ratio_rows(self, name: str, turns: Sequence[Mapping[str, Any]], kind: str) -> None:
        """Add how many times as fast the sides are as others of the same turn: median (least, most).

        Args:
            turns: side as text -> `kind` -> what it took.
        """

        def texts(pairs: Mapping[Side, Side]) -> dict[Side, str]:
            ratios = {a: [turn[str(b)][kind] / turn[str(a)][kind] for turn in turns] for a, b in pairs.items()}
            return {a: f"**{statistics.median(r):.2f}** ({min(r):.2f}, {max(r):.2f})" for a, r in ratios.items()}

        earlier = {side: Side("before", side.precision) for side in self.sides if side.build == "now"}
        pairs = {side: reference for side, reference in earlier.items() if reference in self.sides}
        if pairs:
            self.row(f"{name}, now / before", texts(pairs))
        ours = {side: PUBLISHED for side in self.sides if side != PUBLISHED}
        if ours and PUBLISHED in self.sides:
            self.row(f"{name}, ours / published", texts(ours))


def kinds_of(case: Case) -> dict[str, str]:
    """With more threads than one, processor time is mostly that of waiting threads."""
    return KINDS if case.threads == 1 else {"seconds": KINDS["seconds"]}


def step_tables(found: dict[str, Any], case: Case, sides: Sequence[Side], ramp: bool) -> list[str]:
    """The steps by density; the parts of a step; and what is around them."""
    ours, densities = [side for side in sides if side != PUBLISHED], found["densities"]
    steps, parts, around = Table(sides), Table(ours), Table(sides)
    for density, measured in densities.items():
        pairs = measured["pairs"]
        for kind, unit in kinds_of(case).items():
            medians = {side: statistics.median(pair[str(side)][kind] for pair in pairs) for side in sides}
            steps.row(f"{density}: {unit} per step", {side: f"{value * 1e3:.1f}" for side, value in medians.items()})
        for kind in kinds_of(case):
            by = "processor time" if kind == "cpu" else "times as fast"
            steps.ratio_rows(f"{density}: {by}", pairs, kind)
        for name in PARTS:
            note = measured["parts"]
            parts.row(f"{density}: ms: {name}", {side: f"{note[str(side)].get(name, 0) * 1e3:.2f}" for side in ours})
        kept = measured["density"]
        around.row(f"{density}: share of weights kept", {side: f"{kept[str(side)]:.4f}" for side in sides})
        if seconds := measured.get("update"):
            around.row(f"{density}: ms: a mask update", {side: f"{seconds[str(side)] * 1e3:.1f}" for side in sides})
    last = list(densities.values())[-1]
    padding = {side: statistics.fmean(pair[str(side)]["padding"] for pair in last["pairs"]) for side in sides}
    around.row("tokens computed / real tokens", {side: f"{value:.3f}" for side, value in padding.items()})
    names = {"peak": "peak memory", "mapped": "of these mapped files"}
    if case.device == "cuda":
        names["device"] = "peak memory of the GPU"
    for key, name in names.items():
        around.row(f"MB: {name}", {side: f"{last['memory'][str(side)][key] / 1e6:.0f}" for side in sides})
    for name in ("start", "teacher", "evaluation"):
        around.row(f"s: {name}", {side: f"{found['about'][str(side)][name]:.1f}" for side in ours})
    where = "before the last mask update" if ramp else "after the last mask update"
    heading = [f"\n### {case.title}\n", f"Rows are densities; steps below density 1 are those {where}."]
    return [*heading, *steps.lines, "\nParts of a step:", *parts.lines, "\nAround the steps:", *around.lines]


def recipe_tables(found: dict[str, Any], case: Case, sides: Sequence[Side]) -> list[str]:
    """Whole trainings, and how the models of the two builds compare."""
    rounds, recipe, table = found["rounds"], RECIPES[case.task], Table(sides)
    for kind in kinds_of(case):
        medians = {side: statistics.median(turn[str(side)][kind] for turn in rounds) for side in sides}
        unit = "s: from start to saved model" if kind == "seconds" else "s: of processor time"
        table.row(unit, {side: f"{value:.1f}" for side, value in medians.items()})
    table.ratio_rows("times as fast", rounds, "seconds")
    for name in ("train", "teacher", "eval"):
        seconds = {side: [turn[str(side)]["parts"].get(name) for turn in rounds] for side in sides}
        texts = {side: f"{statistics.median(values):.1f}" for side, values in seconds.items() if None not in values}
        table.row(f"s: {name}", texts)
    peaks = {side: statistics.median(turn[str(side)]["peak"] for turn in rounds) for side in sides}
    table.row("MB: peak memory", {side: f"{value / 1e6:.0f}" for side, value in peaks.items()})
    sparse = {side: [turn[str(side)]["sparse"] for turn in rounds if turn[str(side)]["sparse"]] for side in sides}
    for key, name in {"count": "sparse steps", "gain": "sparse steps: tokens a second, sparse / dense"}.items():
        if any(sparse.values()):
            table.row(name, {side: ", ".join(str(note[key]) for note in notes) for side, notes in sparse.items()})
    finals = {side: [turn[str(side)]["final"] for turn in rounds] for side in sides}
    for name in sorted({name for values in finals.values() for final in values for name in final}):
        known = {side: [final[name] for final in values if name in final] for side, values in finals.items()}
        table.row(f"final {name}", {side: ", ".join(f"{value:.4f}" for value in v) for side, v in known.items()})
    heading = (
        f"\n### {case.title}: {recipe.epochs} epochs of {case.examples:,} examples, 4x1 at {TARGET:.0%}, masks updated "
        f"every {found['frequency']} steps\n"
    )
    return [heading, *table.lines[1:], *map(_compared, found["same"])]


def _compared(same: dict[str, Any]) -> str:
    return (
        f"\nbefore and now, {same['precision']}, seed {same['seed']}: masks equal on {same['masks']:.4%} of the blocks "
        f"({same['kept']:.2%} of those kept before are kept now); weights differ by {same['difference']:.2g} at most, "
        f"where the largest is {same['largest']:.2g}"
    )
