"""What a run with these words would use: folders, threads, device, tracker, paths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydraprune.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Named:
    """Something that a run loads.

    Args:
        key: of the config.
        path: local, or a hub id.
        kind: `model`; `data`, a data set; `file`, which is never a hub id.
    """

    key: str
    path: str
    kind: str


_CACHE = Path(os.path.expanduser("~/.cache/hydraprune"))


@dataclass(frozen=True)
class Meant:
    """What a run would use.

    Args:
        runs, sweeps: folders; `runs_key` is what the first is called in the config.
        max_gb: of the cache, in 10^9 bytes.
        threads: that torch computes with; None: its own choice.
        jobs: of a sweep, at once.
        launcher: of a sweep, as Hydra calls it.
        tracker: mode of W&B; None where it is not used.
        chosen: whether the words choose a task or a model.
    """

    runs: Path = Path("outputs")
    runs_key: str = "run.root"
    sweeps: Path = Path("multirun_sweeps/default")
    cache: Path = _CACHE
    max_gb: float = 20.0
    threads: int | None = None
    compiled: bool = True
    device: str = "auto"
    jobs: int = 1
    launcher: str = "basic"
    tracker: str | None = None
    named: tuple[Named, ...] = ()
    chosen: bool = False


_CHOOSING = {"task", "model", "dense", "distill", "experiment", "matrix", "demo_matrix", "method"}


def meant(words: Sequence[str], cores: int) -> Meant:
    """Of the words of `hydraprune train`; of a sweep's the first job's.

    Args:
        cores: that there are.

    Raises:
        UserError: a mistake in the words.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from hydraprune.config.composition import conf_dir
    from hydraprune.config.messages import explain
    from hydraprune.runs.folders import register

    register()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return _of(compose("config", _first_job(words), return_hydra_config=True), words, cores)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from None


def _of(composed: DictConfig, words: Sequence[str], cores: int) -> Meant:
    from omegaconf import OmegaConf

    from hydraprune.config.composition import resolved
    from hydraprune.config.schema import override_key
    from hydraprune.utils.cache import cache_of

    config = resolved(composed)
    directory = str(OmegaConf.to_container(composed.hydra.run)["dir"])  # type: ignore[index,call-overload]
    ours = "${hydraprune" in directory
    cache = cache_of(config["cache"])
    launcher: dict[str, Any] = OmegaConf.to_container(composed.hydra.launcher)  # type: ignore[assignment]
    return Meant(
        runs=Path(config["run"]["root"] if ours else composed.hydra.run.dir),
        runs_key="run.root" if ours else "hydra.run.dir",
        sweeps=Path(composed.hydra.sweep.dir),
        cache=cache.folder,
        max_gb=cache.max_gb,
        threads=_threads(config["runtime"]["threads"]),
        compiled=bool(config["runtime"]["compiled"]),
        device=str(config["training"]["device"]),
        jobs=_jobs(launcher, cores),
        launcher=str(composed.hydra.runtime.choices["hydra/launcher"]),
        tracker=_tracker(config["tracker"]),
        named=_named(config),
        chosen=any(override_key(word).split(".")[0] in _CHOOSING for word in words),
    )


def _first_job(words: Sequence[str]) -> list[str]:
    """`seed=0` of `seed=0,1,2`."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides(list(words))
    firsts = [next(iter(word.sweep_string_iterator()), None) if word.is_sweep_override() else None for word in parsed]
    return [
        typed if first is None else f"{word.get_key_element()}={first}"
        for typed, word, first in zip(words, parsed, firsts, strict=True)
    ]


def _threads(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise UserError(f"runtime.threads={value}: must be a whole number of at least 1, or null")


def _jobs(launcher: dict[str, Any], cores: int) -> int:
    """How many jobs of a sweep share this machine."""
    target = str(launcher.get("_target_", ""))
    jobs = launcher.get("n_jobs")
    if "joblib" not in target or not isinstance(jobs, int):
        return 1
    # joblib counts back from all cores: -1 all of them, -2 all but one.
    return max(1, jobs if jobs > 0 else cores + 1 + jobs)


def _tracker(node: dict[str, Any]) -> str | None:
    return str(node.get("mode", "auto")) if str(node.get("_target_", "")).endswith("WandB") else None


def _named(config: dict[str, Any]) -> tuple[Named, ...]:
    task = str(config["task"].get("_target_", ""))
    data = "file" if task.endswith("FileTask") else "data"
    found = [
        Named(f"{group}.{key}", value, kind)
        for group, key, kind in (
            ("model", "path", "model"),
            ("task", "path", data),
            ("task", "validation_path", data),
            ("dense", "source", "model"),
            ("distill", "teacher", "model"),
        )
        if isinstance(value := (config.get(group) or {}).get(key), str)
    ]
    return tuple(named for named in found if (named.key, named.path) != ("dense.source", "auto"))


def home_of_the_hub() -> Path:
    """Where what comes from the hub is kept."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("HF_HOME", f"{base}/huggingface")).expanduser()
