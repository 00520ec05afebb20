"""Engines: where the jobs of a sweep run, each in a process of its own."""

from hydraprune.jobs.base import Engine, JobCommand
from hydraprune.jobs.local import Here
from hydraprune.jobs.pools import Joblib, Ray
from hydraprune.jobs.slurm import Slurm

__all__ = ["Engine", "Here", "JobCommand", "Joblib", "Ray", "Slurm"]
