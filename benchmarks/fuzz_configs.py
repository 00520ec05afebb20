"""Fuzz the command line with random configs, and count the outcomes.

    python benchmarks/fuzz_configs.py --examples 1000

Each command must either be refused in one line that names a key, without creating anything, or run and give what it
promises; strategy and oracle are those of tests/fuzz/. Violations are printed with the commands to reproduce them, and
the exit code is then 1.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fuzz"))


def main() -> int:
    """The command: draw, check and count."""
    parser = argparse.ArgumentParser(description="Fuzz the command line with random configs.")
    parser.add_argument("--examples", type=int, default=300, help="how many command lines (default: 300)")
    parser.add_argument("--seed", type=int, help="seed of the draw (default: a new one)")
    parser.add_argument("--whole", action="store_true", help="run through Hydra's main function: slower, but complete")
    parser.add_argument("--shrink", action="store_true", help="stop at the first failure, and shrink it")
    chosen = parser.parse_args()
    seed = secrets.randbelow(2**32) if chosen.seed is None else chosen.seed
    with tempfile.TemporaryDirectory(prefix="hydraprune-fuzz-") as folder:
        os.environ["HYDRAPRUNE_CACHE"] = f"{folder}/cache"
        return soak(Path(folder) / "runs", seed, chosen)


def soak(folder: Path, seed: int, chosen: argparse.Namespace) -> int:
    """Check random commands and print the outcomes; returns 1 if one violated the rule."""
    import hypothesis
    from fuzz_commands import Command, commands
    from fuzz_oracle import Workplace

    workplace, seen, failures = Workplace(folder, chosen.whole), [], []
    began = time.perf_counter()

    def one(words: Command) -> None:
        try:
            seen.append(workplace.judge(words))
        except AssertionError as error:
            failures.append(str(error))
            print(f"\n--- {len(failures)}\n{error}\n", flush=True)
            if chosen.shrink:
                raise

    phases = [hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if chosen.shrink else [])]
    settings = hypothesis.settings(
        max_examples=chosen.examples,
        phases=phases,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    try:
        hypothesis.seed(seed)(settings(hypothesis.given(commands())(one)))()
    except KeyboardInterrupt:
        print("interrupted")
    except AssertionError as error:
        print(f"\n--- the smallest failure found\n{error}\n")
    print(_told(seen, len(failures), seed, time.perf_counter() - began))
    return 1 if failures else 0


def _told(seen: list[object], failed: int, seed: int, seconds: float) -> str:
    kinds = Counter(outcome.kind for outcome in seen)  # type: ignore[attr-defined]
    reasons = Counter(_reason(outcome.line) for outcome in seen if outcome.line)  # type: ignore[attr-defined]
    lines = [f"seed {seed}, {len(seen) + failed} drawn in {seconds:.0f} s: {dict(kinds)}, failed {failed}"]
    pruned = sum(outcome.pruned for outcome in seen)  # type: ignore[attr-defined]
    lines.append(f"{pruned} units pruned and counted; refused or stopped by reason:")
    return "\n".join(lines + [f"{count:5}  {reason}" for reason, count in reasons.most_common()])


def _reason(line: str) -> str:
    """An error line without its key and value."""
    said = re.sub(r"^\S*?[=:]\S* ", "", line)
    return re.sub(r"[\d.]+|'[^']*'", "#", said)[:90]


if __name__ == "__main__":
    sys.exit(main())
