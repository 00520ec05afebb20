"""The job that a composed config asks for."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from hydraprune.config.allowlist import check_targets
from hydraprune.config.composition import plain, resolved, typed_words
from hydraprune.config.schema import check_keys
from hydraprune.runs.dense import composed, identity_of
from hydraprune.runs.experiment import Request
from hydraprune.runs.folders import choices_of, is_planned


def request_of(config: DictConfig, directory: str | None = None) -> Request:
    """The job that a composed config (its `hydra` node included) asks for.

    Raises:
        UserError: an unknown or missing key, or a pattern that cannot be.
    """
    wanted = resolved(config)
    check_targets(plain(wanted), "")
    check_keys(plain(wanted), [plain(composed(words)) for words in ([], ["pattern=dense"])])
    choices = choices_of(config)
    identity = identity_of(wanted, choices)
    # Only now: Hydra's own folder is named by the identity, and its complaints are harder to read.
    place = Path(config.hydra.run.dir if directory is None else directory)
    return Request(wanted, choices, typed_words(config), identity, place, alone=not is_planned(config))
