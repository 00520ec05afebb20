"""Compare all identities (hash, cell, folder) of the version before with today's: `python benchmarks/identities.py`.

tests/config/test_identity.py compares a part of them. Exit code 1 if one differs, which would lose finished runs.
"""

from __future__ import annotations

import json
from pathlib import Path

from hydra import compose, initialize_config_dir

from hydraprune.config.composition import conf_dir
from hydraprune.runs.experiment import build_experiment
from hydraprune.runs.resolvers import register

FILE = Path(__file__).parents[1] / "tests" / "config" / "identities_of_0_1_0.json"


def main() -> int:
    """Print what differs."""
    rows = json.loads(FILE.read_text(encoding="utf-8"))
    register()
    different = 0
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for row in rows:
            experiment = build_experiment(compose("config", row["words"], return_hydra_config=True))
            found = (experiment.spec.hash, experiment.spec.cell, experiment.identity.folder)
            if found != (row["hash"], row["cell"], row["folder"]):
                different += 1
                print(f"{' '.join(row['words'])}: {found}, before {row['hash']}, {row['cell']}, {row['folder']}")
    print(f"{len(rows)} identities, {different} differ")
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
