"""Tasks and their examples: loading, checking, encoding, batching and metrics."""
