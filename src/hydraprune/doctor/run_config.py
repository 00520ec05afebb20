"""What a run with given overrides uses: folders, threads, device, launcher, tracker, models and data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydraprune.errors import UserError
from hydraprune.utils.launchers import workers_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hydraprune.config.composition import LoadedPath

_DEFAULT_CACHE = Path(os.path.expanduser("~/.cache/hydraprune"))
# Overrides of these groups choose what is loaded.
_CHOOSING_GROUPS = {"task", "model", "dense", "distill", "experiment", "matrix", "demo_matrix", "method"}


@dataclass(frozen=True)
class RunConfig:
    """The part of a run's config that the checks need; the defaults are those of conf/.

    Args:
        runs, sweeps: folders; `runs_key` is the config key of the first.
        max_gb: of the cache, in 10^9 bytes.
        threads: of torch; None: torch's default.
        jobs: of a sweep, at a time on this machine.
        launcher: of a sweep, its name in `hydra/launcher=`.
        tracker: the mode of W&B; None if it is not used.
        loaded: models and data sets that the run loads.
        chosen: whether the overrides choose a task or a model.
    """

    runs: Path = Path("outputs")
    runs_key: str = "run.root"
    sweeps: Path = Path("multirun_sweeps/default")
    cache: Path = _DEFAULT_CACHE
    max_gb: float = 20.0
    threads: int | None = None
    compiled: bool = True
    device: str = "auto"
    jobs: int = 1
    launcher: str = "basic"
    tracker: str | None = None
    loaded: tuple[LoadedPath, ...] = ()
    chosen: bool = False


def read_run_config(overrides: Sequence[str], cores: int) -> RunConfig:
    """The run that overrides of `hydraprune train` describe; of a sweep, its first job.

    Args:
        cores: of this machine.

    Raises:
        UserError: a mistake in the overrides.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from hydraprune.config.composition import conf_dir
    from hydraprune.config.messages import explain
    from hydraprune.config.model_choice import with_model_choice
    from hydraprune.runs.resolvers import register

    register()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            words = with_model_choice(_first_job(overrides))
            return _from_composed(compose("config", words, return_hydra_config=True), overrides, cores)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from None


def _from_composed(composed: DictConfig, overrides: Sequence[str], cores: int) -> RunConfig:
    from omegaconf import OmegaConf

    from hydraprune.config.composition import literal, loaded_paths, resolved
    from hydraprune.config.schema import override_key
    from hydraprune.utils.cache import cache_of

    config = OmegaConf.create(literal(resolved(composed)))
    directory = str(OmegaConf.to_container(composed.hydra.run)["dir"])  # type: ignore[index,call-overload]
    is_default = "${hydraprune" in directory
    cache = cache_of(config.cache)
    jobs, remote = workers_of(OmegaConf.to_container(composed.hydra.launcher), cores)
    return RunConfig(
        runs=Path(config.run.root if is_default else composed.hydra.run.dir),
        runs_key="run.root" if is_default else "hydra.run.dir",
        sweeps=Path(composed.hydra.sweep.dir),
        cache=cache.folder,
        max_gb=cache.max_gb,
        threads=_threads(config.runtime.threads),
        compiled=bool(config.runtime.compiled),
        device=str(config.training.device),
        jobs=1 if remote or jobs is None else jobs,
        launcher=str(composed.hydra.runtime.choices["hydra/launcher"]),
        tracker=_wandb_mode(OmegaConf.to_container(config.tracker)),
        loaded=tuple(loaded_paths(config)),
        chosen=any(override_key(override).split(".")[0] in _CHOOSING_GROUPS for override in overrides),
    )


def _first_job(overrides: Sequence[str]) -> list[str]:
    """The overrides of a sweep's first job: `seed=0` for `seed=0,1,2`."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides(list(overrides))
    firsts = [next(iter(each.sweep_string_iterator()), None) if each.is_sweep_override() else None for each in parsed]
    return [
        typed if first is None else f"{each.get_key_element()}={first}"
        for typed, each, first in zip(overrides, parsed, firsts, strict=True)
    ]


def _threads(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise UserError("must be a whole number of at least 1, or null", key="runtime.threads", value=value)


def _wandb_mode(node: Any) -> str | None:
    """The mode of the W&B tracker in a tracker node, which may be one of several."""
    if not isinstance(node, Mapping):
        return None
    if str(node.get("_target_", "")).endswith(".WandB"):
        return str(node.get("mode", "auto"))
    several = node.get("trackers")
    return next(filter(None, map(_wandb_mode, several if isinstance(several, list) else [])), None)
