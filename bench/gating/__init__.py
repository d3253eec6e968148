"""Simulated nights for the benchmark of the release gate."""
