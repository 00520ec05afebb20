"""Small mechanisms that every package shares: files, cache, system resources, signals, redaction, hub access."""
