"""Commands of engines that are lines of shell, and what they leave."""

from __future__ import annotations

from pathlib import Path

from hydraprune.jobs import JobCommand


def commands(folder: Path, *scripts: str, needs: dict[int, int] | None = None) -> list[JobCommand]:
    """A command for each script, with its number in the variable JOB and a log of its own."""
    return [
        JobCommand(
            f"job {n}",
            ("sh", "-c", script),
            folder,
            folder / "logs" / f"{n}.log",
            {"JOB": str(n)},
            (needs or {}).get(n),
        )
        for n, script in enumerate(scripts)
    ]


def done(folder: Path) -> list[str]:
    """The words that scripts appended to the file `done`."""
    file = folder / "done"
    return file.read_text().split() if file.is_file() else []
