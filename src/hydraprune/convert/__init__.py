"""Converts pruning configurations of Neural Compressor 2.x to experiment files. It reads and writes; it trains nothing.

`reader` finds the dicts in a file, `schema` checks their keys, `patterns` and `translate` express them in our config,
`yaml_writer` and `destination` write the file where Hydra finds it.
"""

from hydraprune.convert.destination import experiment_name, experiment_path, save, train_command
from hydraprune.convert.reader import read
from hydraprune.convert.schema import entries_of
from hydraprune.convert.yaml_writer import Converted, as_experiment

__all__ = [
    "Converted",
    "as_experiment",
    "entries_of",
    "experiment_name",
    "experiment_path",
    "read",
    "save",
    "train_command",
]
