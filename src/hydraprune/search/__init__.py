"""A search of hyperparameters by an Optuna study: what is searched, and what the trials found."""

from hydraprune.search.settings import Latency, OptunaStudy

__all__ = ["Latency", "OptunaStudy"]
