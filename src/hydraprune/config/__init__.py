"""Configs: schema, allow-list of targets, identity, instantiation, archive and error messages."""
