"""The kernels under the address and undefined-behaviour sanitizers, with random shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sanitized_kernels
from kernel_helpers import TARGETS, kernels

from hydraprune.sparsity import native_code

ROUNDS = "25"


def library(name: str) -> str:
    """The path of a sanitizer's library that belongs to the compiler."""
    command = native_code.compiler()
    assert command is not None
    found = subprocess.run([command, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if not os.path.isabs(path):
        pytest.skip(f"the compiler has no {name}")
    return path


def run_sanitized(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        # Python and torch leave memory behind.
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    command = [sys.executable, sanitized_kernels.__file__, str(folder), ROUNDS, *TARGETS[target]]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)


@pytest.mark.parametrize("target", ["native", "AVX2"])
def test_random_shapes_break_no_rule(target: str, tmp_path: Path) -> None:
    kernels(target)
    done = run_sanitized(tmp_path, target)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert f"{ROUNDS} rounds" in done.stdout


def test_the_sanitizers_see_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read behind the end of a buffer in a copy of the source ends the same run."""
    kernels()
    source = Path(native_code.__file__).parents[1] / "kernels"
    copy = tmp_path / "hydraprune_kernels"
    copy.mkdir()
    for file in source.iterdir():
        if file.suffix in (".c", ".h"):
            (copy / file.name).write_text(file.read_text())
    text = (copy / "encoder.c").read_text()
    assert "i < length[e]" in text
    (copy / "encoder.c").write_text(text.replace("i < length[e]", "i <= length[e] + 100000"))
    script = tmp_path / "faulty.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom hydraprune.kernels import compiled\n"
        f"compiled.SOURCE = Path({str(copy / 'encoder.c')!r})\n"
        "import sanitized_kernels\nsanitized_kernels.main(*sys.argv[1:])\n"
    )
    monkeypatch.setattr(sanitized_kernels, "__file__", str(script))
    helpers = str(Path(__file__).parents[1] / "helpers")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")]))
    done = run_sanitized(tmp_path / "native", "portable")
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr
