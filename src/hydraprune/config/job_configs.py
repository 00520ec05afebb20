"""Configs of a sweep's jobs: Hydra composes each choice of config groups once, values are set in copies of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig


class JobConfigs:
    """What Hydra's loader gives for the overrides of a job, made faster where jobs differ in values only.

    Args:
        loader: Hydra's.
        master: the config of the sweep.
    """

    def __init__(self, loader: ConfigLoaderImpl, master: DictConfig) -> None:
        self._load: Callable[[DictConfig, list[str]], DictConfig] = loader.load_sweep_config
        self._is_group: Callable[[str], bool] = loader.repository.group_exists
        self._parse = OverridesParser.create(config_loader=loader).parse_overrides
        self._master = master
        self._by_choices: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, words: Sequence[str]) -> DictConfig:
        """The config of a job, its `hydra` node included.

        Raises:
            HydraException: the overrides do not fit.
        """
        overrides = self._parse(list(words))
        values = [override for override in overrides if self._is_value(override)]
        choices = tuple(word for word, o in zip(words, overrides, strict=True) if not self._is_value(o))
        if choices not in self._by_choices:
            self._by_choices[choices] = self._load(self._master, list(choices))
        config = copy.deepcopy(self._by_choices[choices])
        # As Hydra itself does once a config is composed.
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        own = [override for override in overrides if not override.is_hydra_override()]
        config.hydra.overrides.task = [override.input_line for override in own]
        # From Hydra 1.4 on a resolver makes this name of the overrides, when it is asked for.
        dirname = getattr(config_loader_impl, "get_overrides_dirname", None)
        if dirname is not None:
            names: Any = config.hydra.job.config.override_dirname
            config.hydra.job.override_dirname = dirname(
                overrides=own, kv_sep=names.kv_sep, item_sep=names.item_sep, exclude_keys=names.exclude_keys
            )
        return config

    def _is_value(self, override: Override) -> bool:
        """Whether an override sets a value, and takes no part in what is composed."""
        return not override.is_hydra_override() and not self._is_group(override.key_or_group)
