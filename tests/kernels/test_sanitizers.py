"""The kernels under the address and undefined-behaviour sanitizers, with random shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import sanitized_kernels
import sanitized_training
from kernel_helpers import TARGETS, skip_unless_runs

from hydraprune.sparsity import native_code

ROUNDS = "25"
HELPERS = Path(__file__).parents[1] / "helpers"


def library(name: str) -> str:
    """The path of a sanitizer's library that belongs to the compiler."""
    command = native_code.compiler()
    assert command is not None
    found = subprocess.run([command, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if not os.path.isabs(path):
        pytest.skip(f"the compiler has no {name}")
    return path


def run_sanitized(script: str, folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")]),
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        # Python and torch leave memory behind.
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    command = [sys.executable, script, str(folder), ROUNDS, *TARGETS[target]]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)


@pytest.mark.parametrize(
    ("module", "target"),
    [(sanitized_kernels, "native"), (sanitized_kernels, "AVX2"), (sanitized_training, "native")],
    ids=["encoders-native", "encoders-AVX2", "training-native"],
)
def test_random_shapes_break_no_rule(module: ModuleType, target: str, tmp_path: Path) -> None:
    skip_unless_runs(target)
    assert module.__file__ is not None
    done = run_sanitized(module.__file__, tmp_path, target)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert f"{ROUNDS} rounds" in done.stdout


@pytest.mark.parametrize(
    ("module", "place", "file", "right", "wrong"),
    [
        (sanitized_kernels, "compiled", "encoder.c", "i < length[e]", "i <= length[e] + 100000"),
        # The width of a head's matrices is the length itself, not rounded up.
        (
            sanitized_training,
            "training",
            "training_batch.h",
            "return (length + UNIT - 1) / UNIT * UNIT;",
            "return length;",
        ),
    ],
    ids=["encoders", "training"],
)
def test_the_sanitizers_see_a_fault(
    module: ModuleType, place: str, file: str, right: str, wrong: str, tmp_path: Path
) -> None:
    """An access behind the end of a buffer in a copy of the source ends the same run."""
    skip_unless_runs("portable")
    source = Path(native_code.__file__).parents[1] / "kernels"
    copy = tmp_path / "hydraprune_kernels"
    copy.mkdir()
    for path in source.iterdir():
        if path.suffix in (".c", ".h"):
            (copy / path.name).write_text(path.read_text())
    text = (copy / file).read_text()
    assert right in text
    (copy / file).write_text(text.replace(right, wrong))
    main = "encoder.c" if place == "compiled" else "training.c"
    script = tmp_path / "faulty.py"
    script.write_text(
        f"import sys\nfrom pathlib import Path\nfrom hydraprune.kernels import {place}\n"
        f"{place}.SOURCE = Path({str(copy / main)!r})\n"
        f"import {module.__name__} as rounds\nrounds.main(*sys.argv[1:])\n"
    )
    done = run_sanitized(str(script), tmp_path / "native", "portable")
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr
