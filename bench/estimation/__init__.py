"""What the benchmark of the off-policy estimators needs, and their tests use."""
