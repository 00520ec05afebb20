"""The Hugging Face boundary: models, model families as data, tasks, metrics."""
