"""The allowed outcomes of a command line: refused in one line that names a key, or run with the result it asks for."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzz_commands import STARTS, Command
from fuzz_conf import GROUPS, default_words, keys_of, own_keys
from fuzz_zeros import check
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict
from safetensors.numpy import load_file

from hydraprune import cli
from hydraprune.config.composition import conf_dir
from hydraprune.config.messages import TRACEBACK, launched
from hydraprune.config.schema import override_key
from hydraprune.errors import INTERRUPTED
from hydraprune.launch import Preflight, job
from hydraprune.runs.resolvers import register

# Limits of CPU time and of wall time (the machine may be busy) for a run that never ends; one takes half a second.
MOST_SECONDS = {signal.ITIMER_PROF: 60.0, signal.ITIMER_REAL: 900.0}
# Errors that show only while training.
_NUMERICAL = re.compile(r"not finite|NaN|infinite", re.IGNORECASE)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command.

    Args:
        kind: refused, stopped (by non-finite values while training), ran, found (finished) or planned.
        line: the message, if it was refused or stopped.
        pruned: number of pruned units.
    """

    kind: str
    line: str = ""
    pruned: int = 0


class TimeLimitExceededError(BaseException):
    """A command exceeded its time limit. Not an Exception, so that it is not handled as a failed run."""


class Workplace:
    """A folder with dense and sparse models, in which commands run one after the other.

    Args:
        whole: whether to call Hydra's own main function, which reads all of conf/ for every command and is slower.
    """

    def __init__(self, folder: Path, whole: bool = False) -> None:
        self.top = folder
        self.folder = folder / "in" / "side"  # `..` stays inside
        self.folder.mkdir(parents=True)
        self._call: Callable[[], None] = cli.main if whole else lambda: launched(_from_argv)
        for words in STARTS.values():
            code, _, err = self._run(words)
            assert code == 0, err
        self._sparse = load_file(self.folder / "start/sparse/model/model.safetensors")

    def judge(self, words: Command) -> Outcome:
        """Run a command and check that its outcome is allowed.

        Raises:
            AssertionError: it is not; the message contains the command.
        """
        before = self._files()
        try:
            code, out, err = self._run(words)
            return self._judged(words, code, out, err, self._files() - before)
        except (AssertionError, TimeLimitExceededError) as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n\n{reproduced(words)}") from error
        finally:
            self._tidy(before)

    def _judged(self, words: Command, code: int, out: str, err: str, made: set[Path]) -> Outcome:
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        reports = {path: json.loads(path.read_text(encoding="utf-8")) for path in made if path.name == "report.json"}
        own = {path: report for path, report in reports.items() if report["overrides"] == list(words)}
        if code == 2 and "refused" in out:
            assert not made, f"a plan made {_some(made)}"
            return Outcome("planned")
        if code == 2:
            lines = err.splitlines()
            assert len(lines) == 1, f"not one line:\n{err}"
            assert lines[0].startswith("hydraprune: error: "), err
            line = lines[0].removeprefix("hydraprune: error: ")
            if not made:
                assert named(line, words), f"names no key: {line}"
                assert out == "", f"refused, and printed {out!r}"
                return Outcome("refused", line)
            assert _NUMERICAL.search(line), f"refused only after {_some(made)} was made: {line}"
            assert [report["status"] for report in own.values()] == ["failed"], reports
            return Outcome("stopped", line)
        assert code == 0, f"exit code {code}:\n{err}"
        if not own:
            assert "Finished already" in out or not made, f"ran, and left no report of its own: {_some(made)}"
            return Outcome("planned" if "jobs   " in out else "found")
        ((path, report),) = own.items()
        from_sparse = report["dense"] is not None and "start/sparse" in report["dense"]["run"]
        start = self._sparse if from_sparse else None
        return Outcome("ran", pruned=check(path.parent, start))

    def _run(self, words: Command) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        kept = (os.getcwd(), sys.argv)
        for name in ("HYDRA_FULL_ERROR", TRACEBACK):
            os.environ.pop(name, None)
        os.chdir(self.folder)
        # Log messages, such as warnings about the data, are not part of the outcome.
        silent = logging.NullHandler()
        logging.getLogger().addHandler(silent)
        sys.argv = ["hydraprune", "train", *words] if self._call is cli.main else ["hydraprune", *words]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _time_limit():
                code = _exit_code(self._call)
        finally:
            logging.getLogger().removeHandler(silent)
            os.chdir(kept[0])
            sys.argv = kept[1]
            os.environ.pop("HYDRA_FULL_ERROR", None)
        return code, out.getvalue(), err.getvalue()

    def _files(self) -> set[Path]:
        return {path for path in self.top.rglob("*") if path.name != ".lock"}

    def _tidy(self, before: set[Path]) -> None:
        """Remove the files of a command, except dense models, from which other commands start."""
        for path in sorted(self._files() - before, key=lambda path: len(path.parts)):
            if "dense" in path.parts or (path.is_dir() and any(path.rglob("dense"))):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _exit_code(call: Callable[[], None]) -> int:
    try:
        call()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def _from_argv() -> None:
    """What Hydra's main function does, with a Hydra that is initialized once."""
    if not GlobalHydra.instance().is_initialized():
        register()
        initialize_config_dir(str(conf_dir()), version_base="1.3").__enter__()
    config = compose("config", sys.argv[1:], return_hydra_config=True)
    Preflight().on_run_start(config)
    with open_dict(config):
        config.hydra.runtime.output_dir = os.path.abspath(config.hydra.run.dir)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    job(config)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(number: int, frame: types.FrameType | None) -> None:
        raise TimeLimitExceededError(f"still running after {MOST_SECONDS} seconds")

    before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    for timer, seconds in MOST_SECONDS.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in MOST_SECONDS:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def named(line: str, words: Command) -> str | None:
    """The key that a message names: a dotted key, one that was typed, or a top-level group or key with its value."""
    typed = {override_key(word.lstrip("+~")) for word in words}
    # A word without a known key may be quoted as it was typed.
    keys = {*own_keys(), *typed, *GROUPS}
    for group, word in default_words().items():
        keys |= set(keys_of(group, word))
    for word in words:
        group, _, name = word.lstrip("+").partition("=")
        group, _, place = group.partition("@")
        if name in GROUPS.get(group, ()):
            keys |= {f"{place}{key.removeprefix(group)}" if place else key for key in keys_of(group, name)}
    for key in sorted(keys, key=len, reverse=True):
        ending = r"(?![\w.])" if "." in key else r"(?=[=:]|\.\w)"
        if key and re.search(rf"(?<![\w.]){re.escape(key)}{ending}", line):
            return key
    return None


def reproduced(words: Command) -> str:
    """The shell commands that reproduce it in an empty folder."""
    needed = [start for start in STARTS if any(start in word for word in words)]
    needed = list(STARTS) if "start/sparse" in needed else needed
    return "\n".join(f"hydraprune train {shlex.join(line)}" for line in (*map(STARTS.__getitem__, needed), words))


def _some(made: set[Path]) -> list[str]:
    return sorted(str(path) for path in made)[:3]
