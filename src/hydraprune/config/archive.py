"""The config kept beside a job's results: as Hydra would write it, without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydraprune.utils.files import write_text
from hydraprune.utils.redaction import redacted, register_secrets

_FOLDER = ".hydra"


def as_yaml(config: DictConfig | ListConfig | Mapping[str, Any]) -> str:
    """A config as YAML without secrets; interpolations are not resolved."""
    values = OmegaConf.to_container(config) if OmegaConf.is_config(config) else config
    register_secrets(values)
    return OmegaConf.to_yaml(OmegaConf.create(redacted(values)))


def keep_job(config: DictConfig, hydra: DictConfig | HydraConf) -> None:
    """Write config.yaml, hydra.yaml and overrides.yaml of a job where Hydra itself would.

    conf/ turns off Hydra's own files, which would contain secrets. If a user turns them on, these replace them.
    """
    folder = Path(hydra.runtime.output_dir) / (hydra.output_subdir or _FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    whole = OmegaConf.create({"hydra": hydra})
    for name, node in (("config", config), ("hydra", whole), ("overrides", hydra.overrides.task)):
        write_text(folder / f"{name}.yaml", as_yaml(node))


def redact_file(file: Path) -> None:
    """Redact the secrets in a YAML file that another program wrote, if it exists."""
    if file.is_file():
        write_text(file, as_yaml(OmegaConf.load(file)))
