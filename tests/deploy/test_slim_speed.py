"""The benchmark of slimmed models runs and prints its table; its measurements are not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_benchmark_compares_the_outputs_and_prints_its_table(root: Path, tmp_path: Path) -> None:
    words = ["--shape", "tiny", "--engines", "torch", "--tokens", "8", "--turns", "1", "--json", str(tmp_path / "all")]
    command = [sys.executable, str(root / "benchmarks" / "slim_speed.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "weights of the encoder's layers: 55,296 -> 18,432 (3.00x)" in done.stdout
    assert [line.split(" | ")[2] for line in done.stdout.splitlines()[-2:]] == ["1", "8"]
    assert all(row["slim"] > 0 for row in json.loads((tmp_path / "all").read_text(encoding="utf-8")))
