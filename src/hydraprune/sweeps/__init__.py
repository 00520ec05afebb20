"""Many runs: plan, execution, progress and live view of a sweep."""
