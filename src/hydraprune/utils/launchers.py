"""Hydra launchers: how many jobs they run at a time, and where."""

from __future__ import annotations

# Launchers whose jobs run on the machine of the sweep.
_LOCAL = ("BasicLauncher", "JoblibLauncher")
# Keys for the number of jobs at a time, of joblib and of submitit.
_COUNT_KEYS = ("n_jobs", "array_parallelism")


def workers_of(launcher: object, cores: int) -> tuple[int | None, bool]:
    """How many jobs a launcher runs at a time (None: only it knows), and whether on other machines.

    Args:
        launcher: the node `hydra.launcher` as a dict.
        cores: of this machine; joblib counts down from it: -1 is all cores, -2 all but one.
    """
    node = launcher if isinstance(launcher, dict) else {}
    remote = not any(name in str(node.get("_target_", "")) for name in _LOCAL)
    counts = [count for key in _COUNT_KEYS if isinstance(count := node.get(key), int) and count != 0]
    if not counts:
        return None if remote else 1, remote
    return counts[0] if counts[0] > 0 else max(1, cores + 1 + counts[0]), remote
