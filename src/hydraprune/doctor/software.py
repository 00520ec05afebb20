"""Checks of Python, packages and launchers."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib import metadata, util

from hydraprune import __version__
from hydraprune.doctor.result import Finding, State, bad, merge, ok, warn

# Packages whose versions are shown; all others are checked too.
_SHOWN = ("torch", "transformers", "datasets", "hydra-core", "accelerate", "wandb")
# Packages that a run can do without: they are for W&B, the dashboard and figures.
_OPTIONAL = {"wandb", "pillow", "altair", "vl-convert-python", "jinja2", "markupsafe"}
# Name in hydra/launcher= -> package to install, module that it imports.
_LAUNCHERS = {
    "joblib": ("hydra-joblib-launcher", "joblib"),
    "submitit": ("hydra-submitit-launcher", "submitit"),
    "ray": ("hydra-ray-launcher", "ray"),
}


def versions() -> Finding:
    """The versions of Python and of all required packages, against their ranges."""
    python = f"python {platform.python_version()}, hydraprune {__version__}"
    try:
        known = metadata.metadata("hydraprune")
    except metadata.PackageNotFoundError:
        unknown = warn("hydraprune is not installed, so its version ranges are unknown", "pip install .")
        return merge([ok(python), unknown])
    parts = [ok(python), packages(metadata.requires("hydraprune") or [], installed)]
    if not _within(platform.python_version(), known["Requires-Python"] or ""):
        parts.append(bad(f"python must be {known['Requires-Python']}", "create an environment with such a Python"))
    if known["Version"] != __version__:
        parts.append(warn(f"installed as {known['Version']}", "pip install . to update the installed package"))
    return merge(parts)


def installed(name: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def packages(requirements: Sequence[str], version: Callable[[str], str | None]) -> Finding:
    """Packages that are missing or outside their ranges, without extras.

    Args:
        version: the installed version of a package, None without it.
    """
    from packaging.requirements import Requirement

    required = [Requirement(text) for text in requirements]
    required = [one for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    checked = [_package(one.name, str(one.specifier), version(one.name)) for one in required]
    wrong = [finding for finding in checked if finding is not None]
    shown = ", ".join(f"{name} {found}" for name in _SHOWN if (found := version(name)) is not None)
    # One command for all packages.
    cure = "pip install " + " ".join(finding.todo for finding in wrong)
    return merge([ok(shown), *(Finding(finding.state, finding.found, cure) for finding in wrong)])


def _package(name: str, ranges: str, version: str | None) -> Finding | None:
    todo = f"'{name}{ranges}'"
    if version is None:
        return Finding(State.WARN if name in _OPTIONAL else State.BAD, f"no {name}", todo)
    if _within(version, ranges):
        return None
    if _within(version, ",".join(part for part in ranges.split(",") if not part.startswith("<"))):
        return Finding(State.WARN, f"{name} {version} is newer than the tested versions ({ranges})", todo)
    return Finding(State.WARN if name in _OPTIONAL else State.BAD, f"{name} {version} is not {ranges}", todo)


def _within(version: str, ranges: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(ranges).contains(version, prereleases=True)


def launchers(chosen: str, version: Callable[[str], str | None]) -> Finding:
    """Launchers that `hydra/launcher=` can name.

    Args:
        chosen: the launcher of the run.
        version: the installed version of a package, None without it.
    """
    present = {word for word, (package, _) in _LAUNCHERS.items() if version(package) is not None}
    broken = [word for word in sorted(present) if util.find_spec(_LAUNCHERS[word][1]) is None]
    found = ", ".join(["basic (one job at a time)", *(word for word in _LAUNCHERS if word in present - set(broken))])
    if missing := [word for word in _LAUNCHERS if word not in present]:
        found += f"; not installed: {', '.join(missing)}"
    parts = [ok(found)]
    for word in broken:
        report = bad if chosen.startswith(word) else warn
        parts.append(report(f"{word} cannot be imported", f"pip install --force-reinstall {_LAUNCHERS[word][0]}"))
    return merge(parts)
