"""All tests here can compose configs."""

from hydra_fixtures import hydra_once, hydra_ready  # noqa: F401
