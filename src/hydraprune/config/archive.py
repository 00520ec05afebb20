"""What stays of a job's config beside its results: as Hydra would write it, but without secrets."""

from __future__ import annotations

from pathlib import Path

from hydra.conf import HydraConf
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydraprune.utils.files import write_text
from hydraprune.utils.redaction import redacted, register_secrets

_FOLDER = ".hydra"


def as_yaml(config: DictConfig | ListConfig) -> str:
    """A config as YAML, interpolations as they stand."""
    values = OmegaConf.to_container(config)
    register_secrets(values)
    return OmegaConf.to_yaml(OmegaConf.create(redacted(values)))


def keep_job(config: DictConfig, hydra: DictConfig | HydraConf) -> None:
    """Write config.yaml, hydra.yaml and overrides.yaml of a job where Hydra itself would.

    conf/ tells Hydra not to: it would write what it was given. Where a user tells it to, these take their place.
    """
    folder = Path(hydra.runtime.output_dir) / (hydra.output_subdir or _FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    whole = OmegaConf.create({"hydra": hydra})
    for name, node in (("config", config), ("hydra", whole), ("overrides", hydra.overrides.task)):
        write_text(folder / f"{name}.yaml", as_yaml(node))


def clean(file: Path) -> None:
    """Take the secrets out of a YAML file that another has written; nothing where there is none."""
    if file.is_file():
        write_text(file, as_yaml(OmegaConf.load(file)))
