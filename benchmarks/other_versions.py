"""The tests with other versions of the libraries, in an environment of their own.

    python benchmarks/other_versions.py "torch==2.15.0"
    python benchmarks/other_versions.py --pre "hydra-core==1.4.0rc3" "omegaconf==2.4.1rc1" -- tests/config tests/sweeps

The requirements take the place of those in pyproject.toml of the same packages, whatever its ranges say. Printed: the
versions, the exit code of the tests, and their last lines. The environment stays in --folder, if one is given.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ["tests/sparsity", "tests/training", "tests/config", "tests/runs", "tests/sweeps", "tests/models"]


def requirements() -> list[str]:
    """Those of the project and of its tests, without other extras."""
    if sys.version_info < (3, 11):
        raise SystemExit("needs Python 3.11 or newer, for tomllib")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = [*project["dependencies"], *extras["test"], *extras["study"]]
    return [each for each in found if not each.startswith("hydraprune")]


def package(requirement: str) -> str:
    """Its name as pip compares it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~ ;]", requirement, maxsplit=1)[0]).lower()


def main() -> None:
    """Make the environment and run the tests in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("others", nargs="+", metavar="REQUIREMENT")
    parser.add_argument("--pre", action="store_true", help="admit releases before the final one")
    parser.add_argument("--folder", type=Path, help="of the environment; one that is there is used again")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments, tests = parser.parse_args(words[:end]), words[end + 1 :] or TESTS
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "venv"
        python = folder / "bin" / "python"
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if not python.is_file():
            venv.create(folder, with_pip=True)
            replaced = {package(other) for other in arguments.others}
            rest = [each for each in requirements() if package(each) not in replaced]
            subprocess.run([*pip, *(["--pre"] if arguments.pre else []), *arguments.others], check=True)
            subprocess.run([*pip, *rest, *arguments.others], check=True)
            subprocess.run([*pip, "--no-deps", "--editable", str(ROOT)], check=True)
        shown = ["torch", "transformers", "hydra-core", "omegaconf", "accelerate", "optuna"]
        names = ", ".join(f"'{name}'" for name in shown)
        report = f"import importlib.metadata as m; print(*(f'{{name}}=={{m.version(name)}}' for name in [{names}]))"
        subprocess.run([str(python), "-c", report], check=True)
        ended = subprocess.run(
            [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        print("\n".join(ended.stdout.splitlines()[-25:]))
        print(f"exit code {ended.returncode}")


if __name__ == "__main__":
    main()
