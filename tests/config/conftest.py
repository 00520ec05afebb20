"""Fixtures to compose configs in all tests of this folder."""

from hydra_fixtures import hydra_once, hydra_ready  # noqa: F401
