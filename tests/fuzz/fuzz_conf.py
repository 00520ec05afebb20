"""The groups, choices and keys of conf/, read from its files, so that new files are fuzzed too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from hydraprune.config.composition import conf_dir

CONF = conf_dir()
# group -> its choices
GROUPS = {
    group.name: tuple(sorted(path.stem for path in group.glob("*.yaml")))
    for group in sorted(CONF.iterdir())
    if group.is_dir()
}


def _node(place: str) -> dict[str, Any]:
    # Interpolations stay as text.
    node = OmegaConf.to_container(OmegaConf.load(CONF / f"{place}.yaml"))
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


@cache
def default_words() -> dict[str, str]:
    """Group -> its default choice, for groups that have one."""
    chosen: dict[str, str] = {}
    for line in _node("config")["defaults"]:
        chosen |= {k: v for k, v in line.items() if k in GROUPS and v is not None} if isinstance(line, dict) else {}
    return chosen


@cache
def own_keys() -> dict[str, Any]:
    """Dotted key -> value of conf/config.yaml."""
    return {
        key: value for key, value in _flat(_node("config"), "").items() if not key.startswith(("hydra", "defaults"))
    }


@cache
def keys_of(group: str, word: str) -> dict[str, Any]:
    """Dotted key -> value of one file and its defaults, inner nodes included."""
    whole = (CONF / group / f"{word}.yaml").read_text(encoding="utf-8").startswith("# @package _global_")
    return _keys(group, word, "" if whole else f"{group}.")


def _keys(group: str, word: str, prefix: str) -> dict[str, Any]:
    node = _node(f"{group}/{word}")
    found: dict[str, Any] = {}
    for line in node.pop("defaults", []):
        if not isinstance(line, str) or line == "_self_":
            continue
        name, _, place = line.partition("@")
        other = name.lstrip("/").rpartition("/") if name.startswith("/") else (group, "", name)
        found |= _keys(other[0], other[2], f"{prefix}{place}." if place else prefix)
    return found | _flat(node, prefix)


def _flat(node: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
    return found
