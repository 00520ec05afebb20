"""The config kept beside a job's results: as Hydra would write it, without secrets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydraprune.errors import UserError
from hydraprune.utils.files import write_text
from hydraprune.utils.redaction import redacted, register_secrets

DEFAULT_FOLDER = ".hydra"


def as_yaml(config: DictConfig | ListConfig | Mapping[str, Any]) -> str:
    """A config as YAML without secrets; interpolations are not resolved."""
    values = OmegaConf.to_container(config) if OmegaConf.is_config(config) else config
    register_secrets(values)
    return OmegaConf.to_yaml(OmegaConf.create(redacted(values)))


def job_subfolder(name: str | None) -> str:
    """The folder, in that of a run, for the files of Hydra that `hydra.output_subdir` asks for.

    Raises:
        UserError: it is the run's own folder, whose config.yaml is another file, or not a folder in it.
    """
    plain = os.path.normpath(name) if name else "."
    if name is None or plain == ".":
        return DEFAULT_FOLDER
    if os.path.isabs(plain) or os.sep in plain or plain in ("..", "model", "checkpoints"):
        raise UserError(
            "must be a name for a folder in that of the run", key="hydra.output_subdir", value=name, cure="leave it out"
        )
    return plain


def keep_job(config: DictConfig, hydra: DictConfig | HydraConf, subfolder: str) -> None:
    """Write config.yaml, hydra.yaml and overrides.yaml of a job, without secrets.

    conf/ turns off Hydra's own files, which would contain secrets, and which are written before a run has locked its
    folder. If a user turns them on for the jobs of another sweeper, these replace them.

    Args:
        subfolder: as `job_subfolder` gives it.
    """
    folder = Path(hydra.runtime.output_dir) / subfolder
    folder.mkdir(parents=True, exist_ok=True)
    whole = OmegaConf.create({"hydra": hydra})
    for name, node in (("config", config), ("hydra", whole), ("overrides", hydra.overrides.task)):
        write_text(folder / f"{name}.yaml", as_yaml(node))


def redact_file(file: Path) -> None:
    """Redact the secrets in a YAML file that another program wrote, if it exists."""
    if file.is_file():
        write_text(file, as_yaml(OmegaConf.load(file)))
