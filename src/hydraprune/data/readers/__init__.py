"""Readers of data files and folders: csv, json, parquet, and data sets saved to disk."""
