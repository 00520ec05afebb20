"""Between the command line and a run: resolvers, checks before Hydra makes a folder, one-line errors.

Light to import: torch and Hugging Face are loaded when a run is really meant.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydraprune.errors import UserError
from hydraprune.hub.offline import go_offline_if_unreachable
from hydraprune.keys import check_keys, flattened, nearest, override_key, unknown_override

if TYPE_CHECKING:
    from hydraprune.request import Request

log = logging.getLogger(__name__)

TRACEBACK = "HYDRAPRUNE_TRACEBACK"
_MISTAKES = (UserError, HydraException, OmegaConfBaseException)


def conf_dir() -> Path:
    """The folder of config files: inside an installed wheel, or beside `src` in a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def _folder(*, _root_: DictConfig) -> str:
    """`<task>/<model>/<pattern>/<slug>-<hash>` of the config that is being resolved."""
    from hydraprune.ancestor import identity_of
    from hydraprune.request import resolved

    try:
        return identity_of(resolved(_root_), _choices(_root_)).folder
    except (UserError, HydraException, OmegaConfBaseException):
        # Hydra wants a folder even for a job that cannot work.
        return _refusals(_root_.hydra.overrides.task)


def _refusals(words: Iterable[str]) -> str:
    """Where a sweep keeps the report of a refused job: the same place for the same words."""
    return f"refused/{hashlib.sha256(chr(10).join(words).encode()).hexdigest()[:12]}"


def _run_dir(*, _root_: DictConfig) -> str:
    return f"{_root_.run.root}/{_folder(_root_=_root_)}"


def _choices(config: DictConfig) -> dict[str, str]:
    """group -> word chosen, Hydra's own groups included."""
    return {str(k): v for k, v in config.hydra.runtime.choices.items() if isinstance(v, str)}


def register() -> None:
    """Resolvers and names that `conf/` relies on. Safe to call again."""
    OmegaConf.register_new_resolver("hydraprune_run_dir", _run_dir, replace=True)
    OmegaConf.register_new_resolver("hydraprune_run_subdir", _folder, replace=True)
    # A colon in a file name breaks some file systems; the words work all the same.
    ConfigStore.instance().store(group="pattern", name="2:4", node={"defaults": ["2of4"]})


register()


def request_of(config: DictConfig, directory: str | None = None) -> Request:
    """The job that a composed config (its `hydra` node included) asks for.

    Raises:
        UserError: an unknown or missing key, or a pattern that cannot be.
    """
    from hydraprune.ancestor import identity_of
    from hydraprune.request import Request, plain, resolved

    wanted = resolved(config)
    check_keys(plain(wanted), [plain(compose("config", words)) for words in ([], ["pattern=dense"])])
    choices = _choices(config)
    identity = identity_of(wanted, choices)
    # Only now: Hydra's own folder is named by the identity, and its complaints are harder to read.
    place = Path(config.hydra.run.dir if directory is None else directory)
    return Request(wanted, choices, list(config.hydra.overrides.task), identity, place)


class Preflight(Callback):  # type: ignore[misc]
    """Refuses a run before Hydra makes its folder, and ends a sweep with what failed in it.

    Leaves by SystemExit: Hydra swallows other exceptions here.
    """

    def __init__(self) -> None:
        self.started = 0.0

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        try:
            _refuse_launcher()
            go_offline_if_unreachable(_hub_ids(config))
            quiet_libraries()
            from hydraprune.run import preflight  # only now: the libraries read the environment once

            preflight(request_of(config))
        except Exception as error:
            leave(error)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            _refuse_launcher()
            go_offline_if_unreachable(_hub_ids(config))
        except UserError as error:
            leave(error)
        # A file's time may lag behind the clock by a tick.
        self.started = time.time() - 0.05

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """A job that fails returns NaN and leaves a report; this is where the sweep says so."""
        from hydraprune.results.report import NAME, read_report

        folder = Path(config.hydra.sweep.dir)
        recent = [p.parent for p in folder.rglob(NAME) if p.stat().st_mtime >= self.started]
        failed = [(job, report) for job in sorted(recent) if (report := read_report(job)) and report.status == "failed"]
        for job, report in failed:
            print(f"hydraprune: failed: {job}: {report.error}", file=sys.stderr)
        if failed:
            raise SystemExit(1)


def _hub_ids(config: DictConfig) -> list[str]:
    """What a run loads, by hub id or path."""
    keys = ("model.path", "task.path", "dense.source", "distill.teacher")
    values = [OmegaConf.select(config, key, throw_on_missing=False) for key in keys]
    return [value for value in values if isinstance(value, str) and value != "auto"]


def _refuse_launcher() -> None:
    """What `accelerate launch` may say and a run does not follow."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise UserError(
            f"accelerate launch --num_processes {processes}: a run is one process; start it with --num_processes 1, "
            f"and several runs with -m"
        )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no":
        raise UserError(
            f"accelerate launch --mixed_precision {precision}: precision is part of a run's config; say "
            f"training.precision=bf16 instead"
        )


def job(config: DictConfig) -> float | None:
    """One job of `train.py`: returns its headline metric, or NaN for a failed job of a multirun."""
    from hydraprune.results.report import read_report
    from hydraprune.run import execute, preflight, record_refusal

    hydra_config = HydraConfig.get()
    directory = Path(hydra_config.runtime.output_dir)
    quiet_libraries()
    composed = OmegaConf.create({**config, "hydra": hydra_config})
    words = list(hydra_config.overrides.task)
    refusals = Path(hydra_config.sweep.dir) / _refusals(words)
    request = None
    try:
        if hydra_config.mode == RunMode.MULTIRUN:
            (refusals / "report.json").unlink(missing_ok=True)
        request = request_of(composed, _relative(directory))
        if hydra_config.mode == RunMode.MULTIRUN:
            preflight(request)
    except Exception as error:
        if hydra_config.mode != RunMode.MULTIRUN:
            leave(error)
        log.error("Refused: %s", _line(error))
        record_refusal(request, refusals, words, error)
        return math.nan
    try:
        report = execute(request)
    except Exception as error:
        # A job that raised would end the sweep, or hide the failures after it.
        if hydra_config.mode != RunMode.MULTIRUN:
            leave(error)
        log.error("Failed: %s", _line(error), exc_info=not isinstance(error, UserError))
        report_left = read_report(directory)
        if report_left is None or report_left.hash != request.hash:
            record_refusal(request, refusals, words, error)
        return math.nan
    value = report.final.get(report.metric or "")
    return math.nan if value is None else value


def _relative(path: Path) -> str:
    """`path` as a person would write it: from here, if it is below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def quiet_libraries() -> None:
    """Loading bars and notes of the libraries, which would cut our own in pieces."""
    import datasets
    import huggingface_hub
    import transformers

    huggingface_hub.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # Not even its errors: what goes wrong in a file is said once, by us.
    datasets.logging.set_verbosity(logging.CRITICAL)


def launched(main: Callable[[], Any]) -> None:
    """Call a Hydra main function; a user's mistake becomes one line and exit code 2."""
    # Hydra would print its own account of an exception and exit; with this it lets them through.
    debugging = os.environ.setdefault("HYDRA_FULL_ERROR", "0") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if debugging:
        os.environ[TRACEBACK] = "1"
    try:
        _refuse_odd_groups(sys.argv[1:])
        main()
    except Exception as error:
        leave(error)


def _refuse_odd_groups(words: list[str]) -> None:
    """`model=null`, `model=5`, `model=[1]`: Hydra stumbles over them with a traceback."""
    for word in words:
        key, _, value = word.partition("=")
        if (conf_dir() / override_key(key)).is_dir() and re.fullmatch(r"null|[-\d.]+|\[.*\]|\{.*\}", value):
            if key == "experiment" and value == "null":
                continue
            raise UserError(f"{word}: a group wants a word, the name of a file in conf/; for nothing, most have none")


def leave(error: Exception) -> NoReturn:
    """End the program: 2 and one line for a user's mistake, 1 and the traceback for one of ours."""
    mistake = isinstance(error, _MISTAKES)
    if not mistake or os.environ.get(TRACEBACK, "0") == "1":
        traceback.print_exception(error)
    print(f"hydraprune: error: {_line(error)}", file=sys.stderr)
    raise SystemExit(2 if mistake else 1)


def _line(error: Exception) -> str:
    """The error in one line, Hydra's own put in our words."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None and error.options is not None:
        return _unknown_choice(str(error.missing_cfg_file), [str(option) for option in error.options])
    key = unknown_override(error)
    if key is not None and not isinstance(error, UserError):
        return _unknown_key(key)
    if isinstance(error, _MISTAKES):
        return " ".join(text.split())
    return f"{type(error).__name__}: {' '.join(text.split())}"


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
    from hydraprune.request import plain

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
    return f"{typed}: no such key{nearest(key, known)}"
