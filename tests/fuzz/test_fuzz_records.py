"""Random damage to the files of runs and sweeps: every command that reads them names it and shows the others.

HYDRAPRUNE_FUZZ sets the number of examples, which is small in the suite.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dashboard_helpers import world
from fuzz_records import Damaged, damages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("HYDRAPRUNE_FUZZ", "0"))
# A page takes longer than a table.
_FEW = {"dashboard": 5}
# Seconds until a command counts as hanging.
_PATIENCE = 120
COMMANDS: dict[str, tuple[str, ...]] = {
    "report": ("report", "multirun_sweeps", "--out", "tables"),
    "watch": ("watch", "multirun_sweeps", "--once"),
    "watch runs": ("watch", "outputs", "--once"),
    "dashboard": ("dashboard", "multirun_sweeps", "--out", "page.html"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_damaged_file_never_ends_a_command(name: str, hydraprune: Callable[..., Any], workplace: Path) -> None:
    world(workplace)
    good = hydraprune(*COMMANDS[name])

    @settings(
        max_examples=EXAMPLES or _FEW.get(name, 25),
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def judge(data: st.DataObject) -> None:
        damage = data.draw(damages(workplace))
        with Damaged(workplace, damage):
            signal.alarm(_PATIENCE)
            found = hydraprune(*COMMANDS[name])
            signal.alarm(0)
        story = f"{damage.file}: {damage.how}\n{found.err}"
        assert "Traceback" not in found.err, story
        assert found.code in (0, 1), story
        assert found.err.count("\n") <= 1, story
        # The other runs are shown.
        if name == "report":
            assert sum("bert_mini" in line for line in found.out.splitlines()) > 10, story

    assert good.code in (0, 1), good.err
    judge()
