"""The words of a command line before Hydra reads them: flags in front, and a cure for what is typed by habit."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from hydraprune.config.composition import conf_dir, typed_words
from hydraprune.config.config_files import WHOLE_CONFIG_GROUPS
from hydraprune.config.schema import ENGINE_KEYS, OPTIONAL_NODES, override_key
from hydraprune.config.spellings import our_key, our_way
from hydraprune.errors import UserError

# What Hydra's grammar reads as something other than a word.
_NO_WORD = re.compile(r"null|true|false|[-+]?(nan|inf|\.?\d[\d._]*(e[-+]?\d+)?)|\[.*\]|\{.*\}", re.IGNORECASE)
# Dashes that a word processor makes of `-` and `--`.
_DASHES = "-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}\N{HYPHEN}"


def arranged(words: Sequence[str]) -> list[str]:
    """The words with Hydra's flags first: Hydra reads no override that stands before a flag.

    Raises:
        UserError: a flag that Hydra does not have, with the override that is meant; or a group without a file's name.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            overrides += rest
            break
        if word[:1] not in _DASHES or len(word) < 2:
            _check_group(word)
            overrides.append(word)
            continue
        action = _flags().get(word.partition("=")[0])
        if action is None:
            raise _unknown_flag(word, rest)
        flags.append(word)
        if (
            action.nargs != 0
            and "=" not in word
            and rest
            and (action.nargs is None or rest[0] in (action.choices or ()))
        ):
            flags.append(rest.pop(0))
    return [*flags, *overrides]


@lru_cache
def _flags() -> dict[str, argparse.Action]:
    """Hydra's flags by their spellings, without its positional words."""
    return {word: action for action in get_args_parser()._actions for word in action.option_strings}


def _unknown_flag(word: str, rest: Sequence[str]) -> UserError:
    name, equals, value = word.lstrip(_DASHES).partition("=")
    if word[0] != "-" and f"--{name}" in _flags():
        return UserError("begins with a dash of another kind", key=word, cure=f"type --{name}")
    follows = bool(rest) and "=" not in rest[0] and rest[0][:1] not in _DASHES
    typed = f"{word} {rest[0]}" if follows and not equals else word
    value = value if equals else rest[0] if follows else "..."
    if (habit := our_way(name)) is not None:
        return UserError("no such flag", key=word, cure=habit)
    key = our_key(name) or name.replace("-", "_")
    return UserError(
        "keys are typed without dashes", key=typed, cure=f"as in {key if '=' in key else f'{key}={value}'}"
    )


def _check_group(word: str) -> None:
    """Refuse `model=null`, `model=5`, `model=nan` and `model=[1]`, which end in a traceback in Hydra."""
    key, _, value = word.partition("=")
    group = override_key(key)
    if not _is_group(group) or not _NO_WORD.fullmatch(value):
        return
    cure = f"see conf/{group}/; most groups have a file none"
    if value == "null" and group in WHOLE_CONFIG_GROUPS:
        cure = "leave it out: there is none by default"
    elif group.startswith("hydra/"):
        cure = "leave it out for the default"
    raise UserError("a config group needs the name of a file in conf/", key=word, cure=cure)


# Keys that only a sweep reads.
_OF_SWEEPS = ("sweep", "hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep")
# Keys that say how the jobs of a sweep are run, and that the jobs themselves are not given.
_OF_ENGINES = (*OPTIONAL_NODES, *ENGINE_KEYS)


def check_single_run(config: DictConfig) -> None:
    """Refuse words that only a sweep reads in the config of a single run, where they would do nothing.

    Args:
        config: with its `hydra` node.

    Raises:
        UserError: naming the word.
    """
    words = [*config.hydra.overrides.hydra, *typed_words(config)]
    for word in words:
        key = override_key(word)
        if is_below(key, (*_OF_SWEEPS, *_OF_ENGINES)):
            raise UserError("does nothing in a single run", key=word, cure="add -m for a sweep, or leave it out")


def quoted(value: str) -> str:
    """A value of an override that holds any characters."""
    # Hydra reads backslashes as they are, but before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def of_jobs(words: Sequence[str]) -> list[str]:
    """The words of a sweep's command that its jobs are given: without those that say how jobs are run."""
    others = ("hydra.mode", "hydra.run", *_OF_SWEEPS[1:], *_OF_ENGINES)
    return [word for word in words if not is_below(override_key(word), others)]


def check_engine_words(jobs: Sequence[Sequence[str]]) -> None:
    """Refuse a sweep over what says how jobs are run.

    Args:
        jobs: the overrides of every job.

    Raises:
        UserError: naming the key.
    """
    check_varied_keys(override_key(word) for word in (jobs[0] if jobs else ()) if any(word not in job for job in jobs))


def check_varied_keys(keys: Iterable[str]) -> None:
    """Refuse keys that say how jobs are run among those in which jobs differ.

    Raises:
        UserError: naming the key.
    """
    for key in keys:
        if is_below(key, _OF_ENGINES):
            raise UserError("is one for all jobs of a sweep", key=key, cure="give one value")


def is_below(key: str, nodes: Sequence[str]) -> bool:
    """Whether a key is one of some nodes, or inside of one."""
    return any(key == node or key.startswith(f"{node}.") for node in nodes)


def check_sweep_values(values: Mapping[str, int]) -> None:
    """Refuse a sweep of nothing.

    Args:
        values: override as typed -> how many values it has.

    Raises:
        UserError: naming the word without any value.
    """
    for word, count in values.items():
        if not count:
            group = override_key(word)
            files = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")) if _is_group(group) else []
            raise UserError(
                "matches nothing, so there is nothing to run",
                key=word,
                cure=f"choose from {', '.join(files)}" if files else "give at least one value",
            )


def _is_group(key: str) -> bool:
    return key in ("hydra/launcher", "hydra/sweeper") or (key != "" and (conf_dir() / key).is_dir())
