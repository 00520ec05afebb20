"""The lines of README that accelerate a model, with a small one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from family_helpers import save_checkpoint

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_lines_of_the_readme_classify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (section,) = re.findall(r"## Train sparse, run fast\n(.*?)\n## ", README, re.DOTALL)
    (lines,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len([line for line in lines.splitlines() if line]) <= 5
    save_checkpoint(tmp_path / "MODEL", "bert")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(lines, names)
    (found,) = names["classify"]("the film was good")
    assert found["label"] in ("LABEL_0", "LABEL_1")
    assert names["model"].acceleration.way in ("fused", "torch")
