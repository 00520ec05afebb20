"""A pruning configuration of Neural Compressor 2.x -> an experiment of ours. Reads and writes; trains nothing.

`reading` finds the dicts in a file, `entries` and `shapes` know their keys and patterns, `orders` says the same in our
words, `writing` and `saving` make the file that Hydra finds.
"""

from hydraprune.convert.destination import command, place, save, word
from hydraprune.convert.reader import read
from hydraprune.convert.schema import entries_of
from hydraprune.convert.yaml_writer import Converted, written

__all__ = ["Converted", "command", "entries_of", "place", "read", "save", "word", "written"]
