"""The core needs torch and the standard library, and nothing else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hydraprune.sparsity

CORE = Path(hydraprune.sparsity.__file__).parent
FOREIGN = ["hydra", "omegaconf", "transformers", "datasets", "evaluate", "accelerate", "wandb", "sklearn", "scipy"]

SCRIPT = f"""
import sys
for name in {FOREIGN}:
    sys.modules[name] = None  # importing it raises
import torch
from hydraprune.sparsity import Exp, Family, SnipMomentum, attach, block
model = torch.nn.Linear(8, 8)
plan = block(4, 1, 0.5).parts["4x1"].completed(SnipMomentum(), Exp(warmup=1, frequency=1))
(pruner,) = attach(model, {{"mine": plan}}, Family("mine"), steps=3)
for step in range(3):
    model.zero_grad()
    model(torch.randn(2, 8)).sum().backward()
    pruner.observe(step)
    pruner.project(step + 1)
loaded = sorted(name for name in sys.modules if name.startswith("hydraprune"))
outside = [name for name in loaded if name != "hydraprune" and not name.startswith("hydraprune.sparsity")]
print(int((model.weight == 0).sum()), outside)
"""


def test_the_core_prunes_where_nothing_else_is_installed() -> None:
    path = os.pathsep.join([str(CORE.parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "32 []"


@pytest.mark.parametrize("file", sorted(CORE.rglob("*.py")), ids=lambda file: file.name)
def test_a_file_of_the_core_imports_torch_the_core_and_the_standard_library(file: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module or "")
    allowed = {
        name
        for name in imported
        if name.split(".")[0] in {"torch", *sys.stdlib_module_names} or name.startswith("hydraprune.sparsity")
    }
    assert imported == allowed
