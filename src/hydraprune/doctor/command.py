"""The command: words in, one screen out."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from importlib import util
from types import ModuleType

from hydraprune.doctor import hardware as machinery
from hydraprune.doctor import network, software, storage
from hydraprune.doctor.result import Finding, State, bad, ok, worst
from hydraprune.doctor.run_config import Meant, home_of_the_hub, meant
from hydraprune.doctor.runner import Check, look
from hydraprune.errors import UserError, one_line
from hydraprune.utils.system import SPINS, let_threads_sleep

# Seconds: to read something, to ask somebody, to import torch from a slow disk and compile.
_QUICK, _ASKING, _SLOW = 10.0, 20.0, 60.0


def doctor(arguments: Sequence[str]) -> int:
    """Look at all that a run needs and print what was found.

    Args:
        arguments: `--json`, and the words of `hydraprune train`.

    Returns:
        0 when a run can work, 1 when something that it needs is broken.

    Raises:
        SystemExit: 2 and one line for a mistake in the words.
    """
    parser = argparse.ArgumentParser(prog="hydraprune doctor", description="What a run would find here; makes nothing.")
    parser.add_argument("words", nargs="*", metavar="key=value", help="those of the run: run.root=/scratch task=sst2")
    parser.add_argument("-m", "--multirun", action="store_true", help="the words are a sweep's; its first job counts")
    parser.add_argument("--json", action="store_true", help="for machines")
    typed = parser.parse_intermixed_args(list(arguments))
    let_threads_sleep()  # as a run does, before torch
    own = {"GOMP_SPINCOUNT": str(SPINS)}
    environ = {name: value for name, value in os.environ.items() if own.get(name) != value}
    asked, unread = _read(typed.words)
    with warnings.catch_warnings(), _waiting():
        warnings.simplefilter("ignore")
        findings = [*unread, *look(checks(asked, environ))]
    try:
        _show(findings, typed.json)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # `| head` has read enough; rich makes the second of the first
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if worst(findings) is State.BAD else 0


def _read(words: Sequence[str]) -> tuple[Meant, list[Finding]]:
    """What the words mean; where they cannot be read, the defaults, and why."""
    try:
        return meant(words, machinery.cores()), []
    except UserError as error:
        from hydraprune.config.messages import leave

        leave(error)
    except Exception as error:  # Hydra is missing or broken, for one
        cure = "see versions" if isinstance(error, ImportError) else "hydraprune train --cfg job shows what words mean"
        why = bad(f"cannot be read ({one_line(error)}); what follows is of the defaults", cure)
        return Meant(), [replace(why, name="words")]


def checks(asked: Meant, environ: Mapping[str, str]) -> list[Check]:
    """Everything that is looked at, in the order of the screen.

    Args:
        environ: as the user set it.
    """
    hub = home_of_the_hub()
    return [
        Check("versions", software.versions, _QUICK),
        Check("torch", partial(_devices, asked), _SLOW),
        Check("threads", partial(_threads, asked, environ), _SLOW),
        Check("memory", machinery.memory, _QUICK),
        Check("compiler", partial(machinery.compiler, asked.cache, asked.compiled), _SLOW),
        Check(asked.runs_key, partial(storage.folder, asked.runs_key, asked.runs), _QUICK, State.BAD),
        Check("sweep", partial(storage.folder, "hydra.sweep.dir", asked.sweeps), _QUICK),
        Check("cache.dir", partial(storage.cached, asked.cache, asked.max_gb), _QUICK, State.BAD),
        Check("HF_HOME", partial(storage.folder, "HF_HOME", hub, needed=False), _QUICK),
        Check("hub", network.hub, _ASKING),
        Check("W&B", partial(network.wandb, asked.tracker), _ASKING),
        Check("launchers", partial(software.launchers, asked.launcher, software.installed), _QUICK),
        *(Check(one.key, partial(network.named, one, asked.chosen), _ASKING) for one in asked.named),
    ]


def _torch() -> ModuleType:
    import torch

    return torch


def _devices(asked: Meant) -> Finding:
    try:
        torch = _torch()
    except Exception as error:  # a library of CUDA that is not there, for one
        return bad(f"cannot be imported ({one_line(error)})", "pip install --force-reinstall torch")
    return machinery.devices(torch, asked.device)


def _threads(asked: Meant, environ: Mapping[str, str]) -> Finding:
    cores = machinery.cores()
    try:
        used = asked.threads or int(_torch().get_num_threads())
    except Exception:  # said in the line of torch
        return ok(f"{cores} cores")
    return machinery.threads(used, cores, asked.jobs, environ)


def _waiting() -> AbstractContextManager[object]:
    """A word on the terminal, gone when all is looked at: torch alone may take seconds to import."""
    if not sys.stderr.isatty() or util.find_spec("rich") is None:
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status("Looking at versions, devices, network and disks")


def _show(findings: Sequence[Finding], json: bool) -> None:
    from hydraprune.doctor.render import as_json, screen

    if json or util.find_spec("rich") is None:
        print(as_json(findings))
        return
    from rich.console import Console

    terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(highlight=False)
    for line in screen(findings, console.width if terminal else None):
        console.print(line, soft_wrap=True)
