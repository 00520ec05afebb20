"""One run: its experiment, preflight, set-up, execution and report."""
