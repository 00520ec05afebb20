"""Soak the command line: as many drawn configs as one likes, counted by what became of them.

    python benchmarks/fuzz_configs.py --examples 1000

Each must be refused in one line that names a key, with nothing made, or run and keep its word; see
tests/fuzz/, whose strategy and judgement these are. What breaks the rule is printed with the commands that do it again,
and the exit code is 1.
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
    """Draw, judge, count."""
    parser = argparse.ArgumentParser(description="Draw command lines and see what becomes of them.")
    parser.add_argument("--examples", type=int, default=300, help="how many; 300 if not said")
    parser.add_argument("--seed", type=int, help="of the draw; a new one if not said")
    parser.add_argument("--whole", action="store_true", help="through Hydra's main function: slower, and all of it")
    parser.add_argument("--shrink", action="store_true", help="stop at the first failure, and look for a smaller one")
    chosen = parser.parse_args()
    seed = secrets.randbelow(2**32) if chosen.seed is None else chosen.seed
    with tempfile.TemporaryDirectory(prefix="hydraprune-fuzz-") as folder:
        os.environ["HYDRAPRUNE_CACHE"] = f"{folder}/cache"
        return soak(Path(folder) / "runs", seed, chosen)


def soak(folder: Path, seed: int, chosen: argparse.Namespace) -> int:
    """Judge drawn commands, print what became of them; 1 when one broke the rule."""
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
        print(f"\n--- the smallest that was found\n{error}\n")
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
    """What a line says, without the key and value that it says it of."""
    said = re.sub(r"^\S*?[=:]\S* ", "", line)
    return re.sub(r"[\d.]+|'[^']*'", "#", said)[:90]


if __name__ == "__main__":
    sys.exit(main())
