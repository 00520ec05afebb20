"""Reports of runs, and the tables, statistics and figures made from them."""
