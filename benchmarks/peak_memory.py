"""Run a command and write what it used: `python benchmarks/peak_memory.py FILE COMMAND ...`.

A process starts with the peak memory of the one that started it, which is little here.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path


def main() -> int:
    code = subprocess.call(sys.argv[2:])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    Path(sys.argv[1]).write_text(json.dumps({"cpu": used.ru_utime + used.ru_stime, "peak": float(peak)}), "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
