"""The plugin for `hydra/sweeper=hydraprune`: Hydra's basic sweeper, with a plan first and a table at the end."""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser


class PlannedSweeper(BasicSweeper):  # type: ignore[misc]
    """All combinations of the overrides; finished jobs are not launched."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs that are not finished yet.

        Raises:
            SystemExit: see `hydraprune.sweeps.sweep.sweep`.
        """
        # Imported here, since Hydra loads this file at every start.
        from hydraprune.config.command_words import check_sweep_values
        from hydraprune.config.job_configs import JobConfigs
        from hydraprune.sweeps.sweep import sweep

        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])
        configs = JobConfigs(loader, self.config)
        if self.config.get("study") is not None:
            from hydraprune.sweeps.study import run_study

            run_study(overrides, self.config, configs)
            return
        swept = [override for override in overrides if override.is_sweep_override()]
        check_sweep_values({str(each.input_line): sum(1 for _ in each.sweep_string_iterator()) for each in swept})
        (jobs,) = self.split_arguments(overrides, None)

        def launch(words: list[list[str]]) -> None:
            first = 0
            for batch in self.split_overrides_to_chunks(words, self.max_batch_size):
                self.launcher.launch(batch, initial_job_idx=first)
                first += len(batch)

        sweep(jobs, self.config, configs, launch)


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="hydraprune",
    node={"_target_": f"{__name__}.PlannedSweeper", "max_batch_size": None, "params": None},
    provider="hydraprune",
)
