"""Reports of runs, and the tables, statistics and curves made from them."""
