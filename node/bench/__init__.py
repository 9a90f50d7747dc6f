"""Measures peertask, each figure beside the raw floor of the same run; `peertask bench` and `scripts/bench` print it."""
