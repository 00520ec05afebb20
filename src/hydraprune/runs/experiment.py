"""The experiment: one run's identity, config, description and the objects made from the config.

It is built once, where a command starts, and passed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydraprune.config.allowlist import allow_modules, check_targets
from hydraprune.config.composition import choices_of, composed, resolved, typed_words
from hydraprune.config.dense import AUTO, dense_config, dense_key
from hydraprune.config.identity import Identity, identify
from hydraprune.config.instantiate import Components, pattern_name
from hydraprune.config.model_choice import check_model_name
from hydraprune.config.schema import check_keys, override_key
from hydraprune.results.run_spec import RunSpec
from hydraprune.runs.folders import RUN_DIR, is_planned
from hydraprune.sparsity import Plans
from hydraprune.training.settings import Settings
from hydraprune.utils.names import snake
from hydraprune.utils.redaction import redacted


@dataclass(frozen=True)
class Experiment:
    """One run, before anything is loaded or trained.

    Args:
        config: resolved, plain values, without the `hydra` node.
        identity: hash, cell and folder below `run.root`.
        spec: the description that reports, plans, trackers and tables contain.
        components: the objects made from the config.
        directory: the run's folder.
        dense: the dense run that this one starts from; None for a dense run, and where `dense.source` names a model.
        alone: whether the run has the terminal to itself; otherwise it logs to its train.log only.
        requested: whether the user asked for this run; False for a dense run that a sparse run needs.
    """

    config: Mapping[str, Any]
    identity: Identity
    spec: RunSpec
    components: Components
    directory: Path
    dense: Experiment | None
    alone: bool = True
    requested: bool = True

    @property
    def dense_source(self) -> str | None:
        """Folder or hub id of the dense model that the user names; None if it is found in or trained for `run.root`."""
        named = self.spec.phase == "sparse" and self.dense is None
        return str(self.config["dense"]["source"]) if named else None

    @property
    def default_directory(self) -> Path:
        """The run's folder if the user names none."""
        return Path(self.config["run"]["root"]) / self.identity.folder


class DenseExperiments:
    """The dense runs that sparse runs start from, each built once: jobs of a sweep share them."""

    def __init__(self, alone: bool = True) -> None:
        self._alone = alone
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._built: dict[str, Experiment] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config that some overrides compose to; each list of overrides is composed once."""
        key = tuple(overrides)
        if key not in self._composed:
            self._composed[key] = composed(overrides)
        return self._composed[key]

    def __call__(self, sparse: Mapping[str, Any], choices: Mapping[str, str]) -> Experiment:
        """The dense run of a sparse run.

        Args:
            sparse: the sparse run's resolved config.
            choices: config group -> choice of the sparse run.

        Raises:
            UserError: `dense.overrides` do not fit.
        """
        key = dense_key(sparse, choices)
        if key not in self._built:
            config, overrides = dense_config(sparse, choices, self.compose)
            self._built[key] = replace(_experiment(config, {}, overrides, self, self._alone), requested=False)
        return self._built[key]


def build_experiment(config: DictConfig, dense_experiments: DenseExperiments | None = None) -> Experiment:
    """The experiment that a composed config (its `hydra` node included) asks for, in its default directory.

    Args:
        dense_experiments: dense runs that were built for other jobs of the sweep.

    Raises:
        UserError: an unknown or missing key, a value that does not fit, or an impossible pattern.
    """
    _allow_typed_modules(config)
    alone = not is_planned(config)
    dense_experiments = dense_experiments or DenseExperiments(alone)
    return _experiment(resolved(config), choices_of(config), typed_words(config), dense_experiments, alone)


def build_single_run(config: DictConfig) -> Experiment:
    """The experiment of a single run, in the directory that `hydra.run.dir` names.

    Raises:
        UserError: see `build_experiment`.
    """
    experiment = build_experiment(config)
    # The resolver of the default would build the same folder again.
    if OmegaConf.to_container(config.hydra.run)["dir"] == RUN_DIR:  # type: ignore[index,call-overload]
        return experiment
    return replace(experiment, directory=Path(config.hydra.run.dir))


def folder_of(config: DictConfig) -> str:
    """The folder, below `run.root`, of the run that a composed config asks for. Only the pattern is made.

    Raises:
        UserError: see `build_experiment`.
    """
    _allow_typed_modules(config)
    values, choices = resolved(config), choices_of(config)
    dense = None
    if _starts_from_dense_run(values):
        of_dense, _ = dense_config(values, choices, composed)
        dense = identify(of_dense, "dense")
    return identify(values, pattern_name(values), dense).folder


def _experiment(
    config: dict[str, Any],
    choices: Mapping[str, str],
    overrides: Sequence[str],
    dense_experiments: DenseExperiments,
    alone: bool,
) -> Experiment:
    check_targets(config, "")
    check_keys(config)
    check_model_name(config, choices)
    # A dense run has no choices of its own: it starts from no other run.
    dense = dense_experiments(config, choices) if _starts_from_dense_run(config) else None
    components = Components(config)
    identity = identify(config, components.plans.name, None if dense is None else dense.identity)
    spec = _spec(config, identity, components.plans, overrides)
    directory = Path(config["run"]["root"]) / identity.folder
    return Experiment(config, identity, spec, components, directory, dense, alone)


def _allow_typed_modules(config: DictConfig) -> None:
    """Allow the modules that `modules=[...]` names, if it was typed: a config file cannot allow anything."""
    if any(override_key(word) == "modules" for word in typed_words(config)):
        modules = OmegaConf.to_container(config, resolve=False)["modules"]  # type: ignore[index,call-overload]
        allow_modules(modules if isinstance(modules, list) else [modules])


def _starts_from_dense_run(values: Mapping[str, Any]) -> bool:
    dense = values.get("dense")
    return values.get("phase") == "sparse" and isinstance(dense, Mapping) and str(dense.get("source")) == AUTO


def _spec(config: Mapping[str, Any], identity: Identity, plans: Plans, overrides: Sequence[str]) -> RunSpec:
    return RunSpec(
        hash=identity.hash,
        cell=identity.cell,
        phase=config["phase"],
        model=config["model"]["name"],
        task=config["task"]["name"],
        pattern=plans.name,
        target_sparsity=plans.target_sparsity,
        seed=config["seed"],
        precision=config["training"].get("precision", Settings.precision),
        criterion=_shared(plan.criterion.name for plan in plans.parts.values() if plan.criterion),
        scheduler=_shared(snake(type(plan.schedule).__name__) for plan in plans.parts.values()),
        recipe={"name": config["recipe"]["name"], "source": config["recipe"]["source"]},
        overrides=tuple(redacted(list(overrides))),
    )


def _shared(names: Iterable[str]) -> str | None:
    """The name that all pruners share; `mixed` where they differ, None without pruners."""
    different = set(names)
    return None if not different else different.pop() if len(different) == 1 else "mixed"
