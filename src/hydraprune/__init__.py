"""hydraprune: transformers that are sparse in a hardware-friendly pattern, and still accurate."""

__version__ = "0.1.0"
