"""One page that shows what came of some runs, in a single file."""

from hydraprune.dashboard.export import write_figures
from hydraprune.dashboard.page import write_page

__all__ = ["write_figures", "write_page"]
