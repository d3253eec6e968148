"""Simulated slate logs and loop-based estimators, for the benchmark of `ope` and its tests."""
