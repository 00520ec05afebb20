"""The architecture: packages depend on each other in one direction, and frameworks stay in their packages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "hydraprune"

# A package may use those of a lower rank, never one of its own rank or above. Beside each: the frameworks it may use.
PACKAGES: dict[str, tuple[int, set[str]]] = {
    "errors": (0, set()),
    "sparsity": (0, set()),
    "kernels": (1, set()),
    "utils": (1, {"transformers", "datasets"}),
    "jobs": (2, set()),
    "data": (2, {"datasets", "transformers", "evaluate", "sklearn", "scipy"}),
    "models": (3, {"transformers"}),
    "training": (3, {"accelerate"}),
    "integrations": (4, {"transformers", "lightning"}),
    "tracking": (4, {"wandb", "wandb_workspaces"}),
    "results": (3, {"scipy"}),
    "deploy": (4, {"transformers", "onnxruntime", "openvino", "nncf"}),
    "search": (6, {"hydra", "optuna"}),
    "config": (4, {"hydra", "omegaconf"}),
    "bench": (5, {"transformers", "onnxruntime", "openvino", "nncf"}),
    "convert": (6, set()),
    "dashboard": (6, {"altair", "vl_convert", "jinja2"}),
    "runs": (6, {"hydra", "omegaconf", "accelerate"}),
    "sweeps": (7, {"hydra", "omegaconf"}),
    "launch": (8, {"hydra", "omegaconf"}),
    "doctor": (9, {"hydra", "omegaconf"}),
    "cli": (10, {"hydra", "omegaconf"}),
}
LOOSE_MODULES = {"errors", "launch", "cli"}
FRAMEWORKS = {"hydra", "omegaconf", "transformers", "datasets", "evaluate", "accelerate", "wandb", "sklearn", "scipy"}
FRAMEWORKS |= {
    "altair",
    "vl_convert",
    "jinja2",
    "wandb_workspaces",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "optuna",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> str:
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
def test_dependencies_point_one_way(path: Path) -> None:
    here = package_of(path)
    if here == "__init__":
        assert imports(path) == []
        return
    rank, frameworks = PACKAGES[here]
    for name in imports(path):
        first, *rest = name.split(".")
        if first == "hydraprune" and rest[0] in PACKAGES and rest[0] != here:
            assert PACKAGES[rest[0]][0] < rank, f"{path.name}: {here} -> {rest[0]}"
        if first in FRAMEWORKS:
            assert first in frameworks, f"{path.name}: {here} uses {first}"


def test_every_package_has_a_rank() -> None:
    assert {package_of(path) for path in MODULES} - {"__init__"} == set(PACKAGES)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for type checking included."""
    names = {path: ".".join(("hydraprune", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in MODULES}
    modules = {name.removesuffix(".__init__") for name in names.values()}
    needs: dict[str, set[str]] = {}
    for path, name in names.items():
        found = imports(path)
        used = {target if target in modules else target.rpartition(".")[0] for target in found} & modules
        # A module may import names from the `__init__` of its own package.
        needs[name.removesuffix(".__init__")] = {other for other in used if other != name.removesuffix(".__init__")}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(needs[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(needs):
        visit(name, ())


def test_at_most_three_modules_are_loose() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == LOOSE_MODULES


def test_only_one_module_instantiates() -> None:
    def users(name: str) -> list[str]:
        return [path.name for path in MODULES if re.search(rf"\b{name}\(", path.read_text(encoding="utf-8"))]

    assert sorted(users("construct")) == ["construction.py", "instantiate.py"]
    assert users("instantiate") == []  # Hydra's would resolve interpolations a second time


BELOW_CONFIG = [p for p in MODULES if PACKAGES.get(package_of(p), (99,))[0] < PACKAGES["config"][0]]


@pytest.mark.parametrize("path", BELOW_CONFIG, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_packages_below_config_use_no_dictconfig(path: Path) -> None:
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
