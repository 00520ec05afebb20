"""What does a user read who got something wrong? One line, with the key, its value and the cure."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from hydraprune.config.composition import conf_dir, plain
from hydraprune.config.schema import flattened, nearest, override_key, unknown_override
from hydraprune.errors import UserError
from hydraprune.utils import signals as stopping
from hydraprune.utils.redaction import guarded_terminal

TRACEBACK = "HYDRAPRUNE_TRACEBACK"
# What Hydra's grammar reads as something else than a word.
_ODD = re.compile(r"null|true|false|[-+]?(nan|inf|\.?\d[\d._]*(e[-+]?\d+)?)|\[.*\]|\{.*\}", re.IGNORECASE)
_MISTAKES = (UserError, HydraException, OmegaConfBaseException)


@guarded_terminal()
def launched(main: Callable[[], Any]) -> None:
    """Call a Hydra main function; a user's mistake becomes one line and exit code 2."""
    # Hydra would print its own account of an exception and exit; with this it lets them through.
    debugging = os.environ.setdefault("HYDRA_FULL_ERROR", "0") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if debugging:
        os.environ[TRACEBACK] = "1"
    try:
        stopping.listen()
        _refuse_odd_groups(sys.argv[1:])
        main()
    except KeyboardInterrupt as error:
        why = str(error) if isinstance(error, stopping.Stopped) else "interrupted"
        _say(f"hydraprune: {why}; the same command goes on from here\n")
        raise SystemExit(stopping.exit_code(error)) from None
    except Exception as error:
        leave(error)


def _refuse_odd_groups(words: list[str]) -> None:
    """`model=null`, `model=5`, `model=nan`, `model=[1]`: Hydra stumbles over them with a traceback."""
    for word in words:
        key, _, value = word.partition("=")
        if (conf_dir() / override_key(key)).is_dir() and _ODD.fullmatch(value):
            if key in ("experiment", "matrix", "demo_matrix", "method") and value == "null":
                continue
            raise UserError(f"{word}: a group wants a word, the name of a file in conf/; for nothing, most have none")


def leave(error: Exception) -> NoReturn:
    """End the program: 2 and one line for a user's mistake, 1 and the traceback for one of ours."""
    mistake = isinstance(error, _MISTAKES)
    if not mistake or os.environ.get(TRACEBACK, "0") == "1":
        # In one piece: a secret of several lines is known by all of them.
        _say("".join(traceback.format_exception(error)))
    _say(f"hydraprune: error: {_flat(explain(error))}\n")
    raise SystemExit(2 if mistake else 1)


def _say(text: str) -> None:
    # The terminal may be gone; the exit code says it still.
    with suppress(OSError):
        print(text, end="", file=sys.stderr, flush=True)


def explain(error: Exception) -> str:
    """The error in one line, Hydra's own put in our words."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None and error.options is not None:
        return _unknown_choice(str(error.missing_cfg_file), [str(option) for option in error.options])
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if merged := re.search(r"Error merging override (.+)", text, re.DOTALL):
        return f"{_flat(merged.group(1))}: a value where there are keys below, or keys below a value; conf/ shows which"
    if picked := re.search(r"Error resolving interpolation '(\$\{\w+\}_\$\{\w+\}_\$\{\w+\})'", text):
        return _unpicked(picked.group(1))
    if absent := re.search(r"Could not delete from config\. '(.+)' does not exist", text):
        return f"~{absent.group(1)}: there is no such key to leave out"
    if isinstance(error, InterpolationResolutionError) and (named := re.search(r"full_key: (\S+)", text)):
        return f"{named.group(1)}: {_flat(text.partition('full_key:')[0])}"
    key = unknown_override(error)
    if key is not None and not isinstance(error, UserError):
        return _unknown_key(key)
    if isinstance(error, _MISTAKES):
        return " ".join(text.split())
    return f"{type(error).__name__}: {' '.join(text.split())}"


def _flat(text: str) -> str:
    return " ".join(text.split())


def _unreadable(error: OverrideParseException) -> str:
    """A word that Hydra's grammar cannot read."""
    why = _flat(str(error).partition("See https://")[0])
    key, equals, value = str(error.override).partition("=")
    if value and not set(value) & set("'\n") and value[0] not in "[{":
        return f"{_flat(str(error.override))}: cannot be read ({why}); odd signs want quotes: \"{key}='{value}'\""
    cure = "quotes and brackets must be closed, and odd signs in a list quoted" if equals else "say it as key=value"
    return f"{_flat(str(error.override))}: cannot be read ({why}); {cure}"


def _unpicked(name: str) -> str:
    """The file of a group is named by the words of others, and one of them has none."""
    groups = re.findall(r"\{(\w+)\}", name)
    typed = [word for word in sys.argv[1:] if override_key(word) in groups and (word[0] == "~" or "$" in word)]
    return (
        f"{typed[0] if typed else f'{groups[0]}=...'}: {', '.join(groups)} must be words; they pick the recipe {name}"
    )


def _unknown_choice(missing: str, options: list[str]) -> str:
    group, _, word = missing.rpartition("/")
    line = f"{group}={word}: there is no such {group}; choose from {', '.join(sorted(options))}"
    if group == "pattern":
        line += (
            "; any other block is pattern=block pattern.rows=8 pattern.cols=1, "
            "any other N:M pattern=nm pattern.keep=1 pattern.of=4"
        )
    return line


def _unknown_key(key: str) -> str:
    """An override of a key that is not there, with the nearest that is."""
    typed = next((word for word in sys.argv[1:] if "=" in word and override_key(word) == key), key)
    groups = [o for o in sys.argv[1:] if re.fullmatch(r"[a-z_]+=[\w:]+", o) and not o.startswith(f"{key}=")]
    known: list[str] = []
    for overrides in (groups, []):
        try:
            if GlobalHydra.instance().is_initialized():
                known = flattened(plain(compose("config", overrides)))
            else:
                with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                    known = flattened(plain(compose("config", overrides)))
            break
        except (HydraException, OmegaConfBaseException):
            continue
    if key in known:
        return f"{typed}: no such key beside the other words typed (pattern=dense has no scheduler, for example)"
    return f"{typed}: no such key{nearest(key, known)}"
