"""Finished models: their checks, and fast inference."""

from hydraprune.deploy.accelerate import Acceleration, accelerate

__all__ = ["Acceleration", "accelerate"]
