"""Readers of data files and folders: csv, tsv, json, parquet, and data sets saved to disk."""
