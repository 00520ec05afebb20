"""Pruners: the masks over a set of weights and their updates."""
