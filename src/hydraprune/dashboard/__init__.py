"""The dashboard: all results of some runs on one page, in a single HTML file."""

from hydraprune.dashboard.export import write_figures
from hydraprune.dashboard.page import write_page

__all__ = ["write_figures", "write_page"]
