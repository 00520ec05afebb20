"""The command line of doctor: parses the arguments, runs the checks and prints the findings."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from importlib import util
from types import ModuleType

from hydraprune.doctor import hardware, network, software, storage
from hydraprune.doctor.result import Finding, State, bad, ok, worst
from hydraprune.doctor.run_config import RunConfig, read_run_config
from hydraprune.doctor.runner import Check, run_checks
from hydraprune.errors import UserError, one_line
from hydraprune.utils.command_line import OneLineParser
from hydraprune.utils.hub_home import hub_home
from hydraprune.utils.system import SPINS, let_threads_sleep
from hydraprune.utils.terminal import is_interactive

# Time limits in seconds: to read something; to ask a server; to import torch from a slow disk and compile.
_QUICK, _SERVER, _SLOW = 10.0, 20.0, 60.0


def doctor(arguments: Sequence[str]) -> int:
    """Check what a run needs and print the findings.

    Args:
        arguments: `--json`, and overrides as for `hydraprune train`.

    Returns:
        0 if a run can work, 1 if something that it needs is broken.

    Raises:
        SystemExit: 2, after one line, for a mistake in the arguments.
    """
    parser = OneLineParser(
        prog="hydraprune doctor", description="Checks what a run needs on this machine; leaves nothing behind."
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="overrides of the run: run.root=/scratch task=sst2"
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="overrides of a sweep; its first job is checked")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    typed = parser.parse_intermixed_args(list(arguments))
    let_threads_sleep()  # as a run does, before torch
    own = {"GOMP_SPINCOUNT": str(SPINS)}
    environ = {name: value for name, value in os.environ.items() if own.get(name) != value}
    config, unreadable = _read(typed.overrides)
    with warnings.catch_warnings(), _status():
        warnings.simplefilter("ignore")
        findings = [*unreadable, *run_checks(checks(config, environ))]
    try:
        _print(findings, typed.json)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # after `| head`; rich turns the first into the second
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if worst(findings) is State.BAD else 0


def _read(overrides: Sequence[str]) -> tuple[RunConfig, list[Finding]]:
    """The run that the overrides describe; if they cannot be read, the default run and a finding."""
    try:
        return read_run_config(overrides, hardware.cores()), []
    except UserError as error:
        from hydraprune.config.messages import leave

        leave(error)
    except Exception as error:  # Hydra is missing or broken, for example
        cure = "see versions" if isinstance(error, ImportError) else "hydraprune train --cfg job shows the config"
        finding = bad(f"cannot be read ({one_line(error)}); the checks below use the defaults", cure)
        return RunConfig(), [replace(finding, name="words")]


def checks(config: RunConfig, environ: Mapping[str, str]) -> list[Check]:
    """All checks, in the order in which they are shown.

    Args:
        environ: the environment as the user set it.
    """
    return [
        Check("versions", software.versions, _QUICK),
        Check("torch", partial(_devices, config), _SLOW),
        Check("threads", partial(_threads, config, environ), _SLOW),
        Check("memory", hardware.memory, _QUICK),
        Check("compiler", partial(hardware.compiler, config.cache, config.compiled), _SLOW),
        Check(config.runs_key, partial(storage.folder, config.runs_key, config.runs), _QUICK, State.BAD),
        Check("sweep", partial(storage.folder, "hydra.sweep.dir", config.sweeps), _QUICK),
        Check("cache.dir", partial(storage.cache, config.cache, config.max_gb), _QUICK, State.BAD),
        Check("HF_HOME", partial(storage.folder, "HF_HOME", hub_home(), needed=False), _QUICK),
        Check("hub", network.hub, _SERVER),
        Check("W&B", partial(network.wandb, config.tracker), _SERVER),
        Check("launchers", partial(software.launchers, config.launcher, software.installed), _QUICK),
        *(Check(each.key, partial(network.loaded, each, config.chosen), _SERVER) for each in config.loaded),
    ]


def _import_torch() -> ModuleType:
    import torch

    return torch


def _devices(config: RunConfig) -> Finding:
    try:
        torch = _import_torch()
    except Exception as error:  # a missing CUDA library, for example
        return bad(f"cannot be imported ({one_line(error)})", "pip install --force-reinstall torch")
    return hardware.devices(torch, config.device)


def _threads(config: RunConfig, environ: Mapping[str, str]) -> Finding:
    cores = hardware.cores()
    try:
        used = config.threads or int(_import_torch().get_num_threads())
    except Exception:  # the torch check says why
        return ok(f"{cores} cores")
    return hardware.threads(used, cores, config.jobs, environ)


def _status() -> AbstractContextManager[object]:
    """A status line in a terminal while the checks run: importing torch alone may take seconds."""
    if not is_interactive(sys.stderr) or util.find_spec("rich") is None:
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status("Checking versions, devices, network and disks")


def _print(findings: Sequence[Finding], json: bool) -> None:
    from hydraprune.doctor.render import as_json, as_lines

    if json or util.find_spec("rich") is None:
        print(as_json(findings))
        return
    from rich.console import Console

    wrap = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(highlight=False)
    for line in as_lines(findings, console.width if wrap else None):
        console.print(line, soft_wrap=True)
