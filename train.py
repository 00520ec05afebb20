"""Train, prune and report: `python train.py pattern=4x1 task=sst2`."""

import hydra
from omegaconf import DictConfig

from hydraprune.config.messages import launched
from hydraprune.launch import job


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | list[float] | None:
    """One job; Hydra composes its config."""
    return job(config)


if __name__ == "__main__":
    launched(main)
