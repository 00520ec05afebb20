"""Two builds of the package: the running one, and an earlier one in an environment of its own.

The environment of the earlier build holds the running one's libraries, and of the package the
earlier source alone. Making it needs no network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The last commit that computed every step dense.
COMMIT = "0437d7b"
_SHOW = "import hydraprune, torch; print(*hydraprune.__path__, torch.__file__, sep='\\n')"


@dataclass(frozen=True)
class Build:
    """A build of the package.

    Args:
        name: `before` or `now`.
        python: the interpreter that imports it.
        package: its folder.
        commit: of its source; `unknown` outside of git.
    """

    name: str
    python: str
    package: Path
    commit: str

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of its processes, in which nothing leads to another build."""
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        kept = [path for path in paths if path and (self.name == "now" or not (Path(path) / "hydraprune").is_dir())]
        rest = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**rest, **({"PYTHONPATH": os.pathsep.join(kept)} if kept else {})}

    def check(self) -> None:
        """Stop unless its interpreter imports its own package and the running torch."""
        import torch

        shown = subprocess.run(
            [self.python, "-c", _SHOW], capture_output=True, text=True, check=False, env=self.environment, cwd="/"
        )
        found = [Path(line).resolve() for line in shown.stdout.splitlines()]
        if found != [self.package, Path(torch.__file__).resolve()]:
            raise SystemExit(f"{self.name}: imports another package or torch:\n{shown.stdout}{shown.stderr[-2000:]}")


def running_build() -> Build:
    """The build that this process imports."""
    import hydraprune

    package = Path(hydraprune.__file__).resolve().parent
    return Build("now", sys.executable, package, _commit(package))


def earlier_build(folder: Path, checkout: Path | None = None) -> Build:
    """The build of `COMMIT`, its environment made in `folder`.

    Args:
        folder: empty.
        checkout: of the earlier source; None: taken from this repository's history into `folder`.
    """
    commit = COMMIT
    if checkout is None:
        checkout = folder / "source"
        _extract(checkout)
    else:
        checkout = checkout.resolve()
        if not (checkout / "src" / "hydraprune").is_dir():
            raise SystemExit(f"--before {checkout}: is no checkout (it has no src/hydraprune)")
        commit = _commit(checkout / "src" / "hydraprune")
    venv.EnvBuilder(system_site_packages=True, symlinks=os.name != "nt").create(folder / "venv")
    python = str(folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    running = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    # Files .pth in these folders are not followed, so an editable install of the running build is not found.
    lines = [str(checkout / "src"), *running]
    Path(packages, "builds.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    build = Build("before", python, (checkout / "src" / "hydraprune").resolve(), commit)
    build.check()
    return build


def has_history() -> bool:
    """Whether this repository's history holds `COMMIT`."""
    try:
        found = subprocess.run(["git", "-C", str(ROOT), "cat-file", "-e", f"{COMMIT}^{{commit}}"], capture_output=True)
    except OSError:
        return False
    return found.returncode == 0


def _extract(target: Path) -> None:
    if not has_history():
        raise SystemExit(
            f"{ROOT}: its history does not hold {COMMIT}; give a checkout with --before FOLDER, or leave the side out: "
            "--sides published now"
        )
    target.mkdir()
    archive = target.with_suffix(".zip")
    subprocess.run(
        ["git", "-C", str(ROOT), "archive", "-o", str(archive), COMMIT, "src", "conf", "train.py"], check=True
    )
    with zipfile.ZipFile(archive) as files:
        files.extractall(target)
    archive.unlink()


def _commit(package: Path) -> str:
    """The commit of a package's source, marked `-dirty` where files of the checkout differ from it."""
    git = ["git", "-C", str(package)]
    try:
        # A package that is installed below another repository is not tracked there.
        if subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True).returncode:
            return "unknown"
        found = subprocess.run([*git, "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
