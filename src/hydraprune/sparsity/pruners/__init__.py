"""Pruners: they hold the masks of a set of weights and update them."""
