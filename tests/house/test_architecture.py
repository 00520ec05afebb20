"""The house: arrows point one way, and what belongs to one room stays in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "hydraprune"

# Higher rooms may use lower ones; rooms of one rank do not know each other, except as said below.
RANK = {
    "errors": 0,
    "sparsity": 0,
    "identity": 0,
    "keys": 0,
    "targets": 0,
    "redaction": 0,
    "machine": 0,
    "stopping": 0,
    "places": 0,
    "cache": 0,
    "training": 1,
    "hub": 2,
    "tracking": 2,
    "results": 2,
    "deploy": 3,
    "assembly": 4,
    "building": 5,
    "checks": 6,
    "request": 5,
    "traces": 6,
    "mistakes": 6,
    "ancestor": 6,
    "account": 6,
    "failures": 6,
    "run": 7,
    "planning": 8,
    "dashboard": 3,
    "picture": 3,
    "convert": 3,
    "view": 4,
    "watch": 4,
    "folders": 8,
    "launch": 9,
    "doctor": 10,
    "sweep": 10,
    "cli": 11,
}
WITHIN_RANK = {(room, "errors") for room in ("stopping", "keys", "cache", "places", "targets")}
WITHIN_RANK |= {("keys", "targets"), ("keys", "redaction"), ("failures", "account")}
FRAMEWORKS = {"hydra", "omegaconf", "transformers", "datasets", "evaluate", "accelerate", "wandb", "sklearn", "scipy"}
FRAMEWORKS |= {"altair", "vl_convert", "jinja2"}
FRAMEWORKS |= {"wandb_workspaces"}
ALLOWED_FRAMEWORKS = {
    "sparsity": set(),
    "identity": set(),
    "errors": set(),
    "keys": set(),
    "targets": set(),
    "redaction": set(),
    "machine": set(),
    "stopping": set(),
    "places": set(),
    "cache": set(),
    "training": {"accelerate"},
    "hub": {"transformers", "datasets", "evaluate", "sklearn", "scipy"},
    "tracking": {"wandb", "wandb_workspaces"},
    "results": {"scipy"},
    "deploy": set(),
    "assembly": {"hydra", "omegaconf"},
    "building": {"omegaconf", "accelerate"},
    "checks": {"omegaconf"},
    "request": {"omegaconf"},
    "traces": {"hydra", "omegaconf"},
    "mistakes": {"hydra", "omegaconf"},
    "ancestor": {"hydra", "omegaconf"},
    "account": set(),
    "failures": {"omegaconf"},
    "run": {"omegaconf"},
    "planning": set(),
    "picture": set(),
    "convert": set(),
    "view": set(),
    "dashboard": {"altair", "vl_convert", "jinja2"},
    "watch": set(),
    "folders": {"hydra", "omegaconf"},
    "launch": {"hydra", "omegaconf", "transformers", "datasets"},
    "sweep": {"hydra", "omegaconf"},
    "doctor": {"hydra", "omegaconf"},
    "cli": {"hydra", "omegaconf"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_one_way(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        assert imports(path) == []
        return
    assert here in RANK, f"{here} has no place in the house yet"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "hydraprune" and parts[1] in RANK and parts[1] != here:
            assert RANK[parts[1]] < RANK[here] or (here, parts[1]) in WITHIN_RANK, f"{path.name}: {here} -> {parts[1]}"
        if parts[0] in FRAMEWORKS:
            assert parts[0] in ALLOWED_FRAMEWORKS[here], f"{path.name}: {here} uses {parts[0]}"


def test_every_room_was_looked_at() -> None:
    assert {room(path) for path in MODULES} - {"__init__"} == set(RANK)


def test_only_assembly_instantiates() -> None:
    users = [path.name for path in MODULES if re.search(r"\binstantiate\(", path.read_text(encoding="utf-8"))]
    assert users == ["assembly.py"]


BELOW_ASSEMBLY = [p for p in MODULES if room(p) in RANK and RANK[room(p)] < RANK["assembly"] and room(p) != "identity"]


@pytest.mark.parametrize("path", BELOW_ASSEMBLY, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_configs_stay_above(path: Path) -> None:
    names = {node.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)}
    assert not names & {"cfg", "DictConfig", "OmegaConf"}


def test_importing_the_command_line_is_light() -> None:
    """`--help` and a mistyped word must not wait for torch."""
    import subprocess
    import sys

    program = (
        "import sys, hydraprune.cli; print(sorted({'torch', 'transformers', 'datasets', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_train_py_is_a_decorator_and_one_call() -> None:
    tree = ast.parse((PACKAGE.parents[1] / "train.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert len(functions) == 1
    body = [node for node in functions[0].body if not isinstance(node, ast.Expr)]
    assert len(body) == 1
    assert isinstance(body[0], ast.Return)
