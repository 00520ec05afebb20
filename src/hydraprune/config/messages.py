"""Errors on the command line: Hydra's as user errors, one line on the terminal, and the exit code."""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from hydraprune.config.command_words import arranged
from hydraprune.config.composition import conf_dir, plain
from hydraprune.config.config_files import WHOLE_CONFIG_GROUPS
from hydraprune.config.model_choice import with_model_choice
from hydraprune.config.schema import flattened, nearest, override_key, unknown_override
from hydraprune.config.spellings import our_choice, our_key, our_way
from hydraprune.errors import MISTAKE, UserError, one_line, single_line
from hydraprune.utils import signals
from hydraprune.utils.process_start import is_follower, is_lost_connection
from hydraprune.utils.redaction import guarded_terminal
from hydraprune.utils.terminal import lasting_terminal

# Groups that rows of a matrix choose, with an example: Hydra checks the keys of a sweep before it reads its rows.
_CHOSEN_BY_ROWS = {"task": "toy", "model": "tiny"}
TRACEBACK = "HYDRAPRUNE_TRACEBACK"
# Seconds that a process waits for the first process of its run to end, before it ends itself.
_PATIENCE = 15.0


@lasting_terminal()
@guarded_terminal()
def launched(main: Callable[[], Any]) -> None:
    """Call a Hydra main function; a user's mistake becomes one line and exit code 2."""
    # With this variable Hydra raises exceptions instead of printing them and exiting.
    debugging = os.environ.setdefault("HYDRA_FULL_ERROR", "0") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if debugging:
        os.environ[TRACEBACK] = "1"
    try:
        _check_folder()
        sys.argv = [sys.argv[0], *with_model_choice(arranged(sys.argv[1:]))]
        with signals.listening():
            main()
    except KeyboardInterrupt as error:
        why = str(error) if isinstance(error, signals.Stopped) else "interrupted"
        if not is_follower(os.environ):
            _print(f"hydraprune: {why}; the same command resumes from here\n")
        raise SystemExit(signals.exit_code(error)) from None
    except Exception as error:
        leave(error)


def _check_folder() -> None:
    """Refuse a current folder that Hydra cannot name.

    Raises:
        UserError: it is gone, or its name holds an interpolation.
    """
    try:
        folder = os.getcwd()
    except OSError as error:
        raise UserError(
            f"is gone ({error.strerror or error})", key="the current folder", cure="cd to another"
        ) from None
    if "${" in folder:
        raise UserError(
            "Hydra reads ${ in the name of the current folder as an interpolation", key=folder, cure="cd to another"
        )


def leave(error: Exception) -> NoReturn:
    """End the program: exit code 2 and one line for a user's mistake, 1 and the traceback for any other error."""
    mistake = isinstance(error, (UserError, HydraException, OmegaConfBaseException))
    if is_follower(os.environ) and (mistake or is_lost_connection(error)):
        # The first process meets the same mistake, or has ended before, and says so; its starter would end it as soon
        # as this one has ended.
        time.sleep(_PATIENCE)
        raise SystemExit(MISTAKE if mistake else 1)
    if not mistake or os.environ.get(TRACEBACK, "0") == "1":
        # In one piece, so that a secret of several lines is recognized.
        _print("".join(traceback.format_exception(error)))
    _print(f"hydraprune: error: {explain(error)}\n")
    raise SystemExit(MISTAKE if mistake else 1)


def _print(text: str) -> None:
    # The terminal may be closed; the exit code still counts.
    with suppress(OSError):
        print(text, end="", file=sys.stderr, flush=True)


def explain(error: Exception) -> str:
    """An error in one line, with Hydra's and OmegaConf's errors as user errors."""
    if isinstance(error, UserError) or not isinstance(error, (HydraException, OmegaConfBaseException)):
        return one_line(error)
    return one_line(_from_hydra(error))


def _from_hydra(error: HydraException | OmegaConfBaseException) -> UserError:
    """Hydra's or OmegaConf's error as a user error. Their messages are the only place that names the key."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None and error.options is not None:
        return _unknown_choice(str(error.missing_cfg_file), [str(option) for option in error.options])
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if several := re.search(r"Ambiguous value for argument '(.+?)'\s+1\.", text, re.DOTALL):
        return UserError("several values are a sweep", key=single_line(several.group(1)), cure="add -m")
    if merged := re.search(r"Error merging override (.+)", text, re.DOTALL):
        return UserError(
            "a value where there are keys below, or keys below a value",
            key=single_line(merged.group(1)),
            cure="see conf/",
        )
    if picked := re.search(r"Error resolving interpolation '(\$\{\w+\}_\$\{\w+\}_\$\{\w+\})'", text):
        return _no_recipe(picked.group(1))
    if absent := re.search(r"Could not delete from config\. '(.+)' does not exist", text):
        return UserError("there is no such key to leave out", key=f"~{absent.group(1)}")
    if isinstance(error, InterpolationResolutionError) and (named := re.search(r"full_key: (\S+)", text)):
        return UserError(single_line(text.partition("full_key:")[0]), key=named.group(1))
    key = unknown_override(error)
    return UserError(single_line(text) or type(error).__name__) if key is None else _unknown_key(key)


def _unreadable(error: OverrideParseException) -> UserError:
    """An override that Hydra's grammar cannot read."""
    why = single_line(str(error).partition("See https://")[0])
    key, equals, value = str(error.override).partition("=")
    if value and not set(value) & set("'\n") and value[0] not in "[{":
        cure = f"quote special characters: \"{key}='{value}'\""
    elif colon := re.fullmatch(r"([\w./@]+):\s*(\S+)", str(error.override)):
        cure = f"write it as {colon.group(1)}={colon.group(2)}"
    else:
        cure = (
            "close quotes and brackets, and quote special characters in a list" if equals else "write it as key=value"
        )
    return UserError(f"cannot be read ({why})", key=single_line(str(error.override)), cure=cure)


def _no_recipe(name: str) -> UserError:
    """The recipe is named by the choices of three groups, and one of them has none."""
    groups = re.findall(r"\{(\w+)\}", name)
    typed = [word for word in sys.argv[1:] if override_key(word) in groups and (word[0] == "~" or "$" in word)]
    return UserError(
        f"{', '.join(groups)} must be names of files in conf/; they choose the recipe {name}",
        key=typed[0] if typed else f"{groups[0]}=...",
    )


def _unknown_choice(missing: str, options: list[str]) -> UserError:
    group, _, word = missing.rpartition("/")
    if not group.startswith("hydra/") and "/" in group:
        # A name with a slash, which Hydra takes for a group below the group.
        group, _, word = missing.partition("/")
        folder = conf_dir() / group
        options = sorted(path.stem for path in folder.glob("*.yaml")) if folder.is_dir() else options
    if not options:
        return UserError(f"there is no such group {group}", key=group, value=word, cure=f"in a file, write /{word}")
    cure = f"choose from {', '.join(sorted(options))}"
    if meant := _meant(group, word, options):
        cure = f"did you mean {meant}? Or {cure}"
    if group == "pattern":
        cure += (
            "; any other block is pattern=block pattern.rows=8 pattern.cols=1, "
            "any other N:M pattern=nm pattern.keep=1 pattern.of=4"
        )
    return UserError(f"there is no such {group}", key=group, value=word, cure=cure)


def _meant(group: str, word: str, options: list[str]) -> str | None:
    """The words that were probably meant by an unknown choice."""
    if group == "model" and ("/" in word or "-" in word):
        known = our_choice(group, word, options)
        return f"model.path={word}" + (f", or model={known}" if known else "")
    if group == "task" and re.search(r"[/.]", word):
        known = our_choice(group, word.rpartition("/")[2], options)
        return f"task={known}" if known else f"task=file task.path={word}"
    if group == "pattern" and (block := re.fullmatch(r"(\d+)x(\d+)", word)):
        return f"pattern=block pattern.rows={block.group(1)} pattern.cols={block.group(2)}"
    if group == "pattern" and (of := re.fullmatch(r"(\d+)(?::|of|-)(\d+)", word)):
        return f"pattern=nm pattern.keep={of.group(1)} pattern.of={of.group(2)}"
    known = our_choice(group, word, options)
    return None if known is None else f"{group}={known}"


def _unknown_key(key: str) -> UserError:
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
        return UserError(
            "no such key beside the other words typed", key=typed, cure="pattern=dense has no scheduler, for example"
        )
    group = key.partition(".")[0]
    swept = {"-m", "--multirun"} & set(sys.argv)
    if swept and group in _CHOSEN_BY_ROWS and any(override_key(word) in WHOLE_CONFIG_GROUPS for word in sys.argv[1:]):
        cure = (
            f"each row chooses the {group}; where all rows have the same, give it too: {group}={_CHOSEN_BY_ROWS[group]}"
        )
        return UserError(f"no such key of the default {group}", key=typed, cure=cure)
    if key in ("pattern.n", "pattern.m", "pattern.keep", "pattern.of"):
        cure = "N:M with numbers of your own is pattern=nm pattern.keep=2 pattern.of=4: keep 2 of 4"
        return UserError("no such key", key=typed, cure=cure)
    if habit := our_way(key):
        return UserError("no such key", key=typed, cure=habit)
    if ours := our_key(key):
        value = typed.partition("=")[2]
        meant = ours if "=" in ours or not value else f"{ours}={value}"
        return UserError("no such key", key=typed, cure=f"did you mean {meant}?")
    return UserError(f"no such key{nearest(key, known)}", key=typed)
