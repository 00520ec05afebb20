"""Python, packages and launchers."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib import metadata, util

from hydraprune import __version__
from hydraprune.doctor.result import Finding, State, bad, ok, together, warn

# Shown when all is well; all others are looked at too.
_SHOWN = ("torch", "transformers", "datasets", "hydra-core", "accelerate", "wandb")
# Without these a run works: they are for W&B, and for pages and pictures.
_SPARED = {"wandb", "pillow", "altair", "vl-convert-python", "jinja2", "markupsafe"}
# Word after hydra/launcher= -> package to install, module that it needs.
_LAUNCHERS = {
    "joblib": ("hydra-joblib-launcher", "joblib"),
    "submitit": ("hydra-submitit-launcher", "submitit"),
    "ray": ("hydra-ray-launcher", "ray"),
}


def versions() -> Finding:
    """Of Python and of all packages that hydraprune asks for, against the ranges it gives."""
    python = f"python {platform.python_version()}, hydraprune {__version__}"
    try:
        known = metadata.metadata("hydraprune")
    except metadata.PackageNotFoundError:
        unknown = warn("hydraprune is not installed, so its ranges of versions are not known", "pip install .")
        return together([ok(python), unknown])
    parts = [ok(python), packages(metadata.requires("hydraprune") or [], installed)]
    if not _within(platform.python_version(), known["Requires-Python"] or ""):
        parts.append(bad(f"python must be {known['Requires-Python']}", "make a new environment with such a Python"))
    if known["Version"] != __version__:
        parts.append(warn(f"installed as {known['Version']}", "pip install . so that code and package are one"))
    return together(parts)


def installed(name: str) -> str | None:
    """The version of a package; None without it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def packages(requirements: Sequence[str], version: Callable[[str], str | None]) -> Finding:
    """What is missing or outside its range, extras left out."""
    from packaging.requirements import Requirement

    asked = [Requirement(text) for text in requirements]
    asked = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    looked = [_package(one.name, str(one.specifier), version(one.name)) for one in asked]
    wrong = [finding for finding in looked if finding is not None]
    here = ", ".join(f"{name} {found}" for name in _SHOWN if (found := version(name)) is not None)
    # One command for all of them.
    cure = "pip install " + " ".join(finding.todo for finding in wrong)
    return together([ok(here), *(Finding(finding.state, finding.found, cure) for finding in wrong)])


def _package(name: str, ranges: str, version: str | None) -> Finding | None:
    todo = f"'{name}{ranges}'"
    if version is None:
        return Finding(State.WARN if name in _SPARED else State.BAD, f"no {name}", todo)
    if _within(version, ranges):
        return None
    if _within(version, ",".join(part for part in ranges.split(",") if not part.startswith("<"))):
        return Finding(State.WARN, f"{name} {version} is newer than what was tested ({ranges})", todo)
    return Finding(State.WARN if name in _SPARED else State.BAD, f"{name} {version} is not {ranges}", todo)


def _within(version: str, ranges: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(ranges).contains(version, prereleases=True)


def launchers(chosen: str, version: Callable[[str], str | None]) -> Finding:
    """What `hydra/launcher=` may name here."""
    there = {word for word, (package, _) in _LAUNCHERS.items() if version(package) is not None}
    torn = [word for word in sorted(there) if util.find_spec(_LAUNCHERS[word][1]) is None]
    found = ", ".join(["basic (one job at a time)", *(word for word in _LAUNCHERS if word in there - set(torn))])
    if missing := [word for word in _LAUNCHERS if word not in there]:
        found += f"; not installed: {', '.join(missing)}"
    parts = [ok(found)]
    for word in torn:
        broken = bad if chosen.startswith(word) else warn
        parts.append(broken(f"{word} cannot be imported", f"pip install --force-reinstall {_LAUNCHERS[word][0]}"))
    return together(parts)
