"""Checks of a finished model."""
