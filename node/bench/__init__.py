"""Measures peertask, each figure beside the raw floor of the same run; `peertask bench` prints it."""
