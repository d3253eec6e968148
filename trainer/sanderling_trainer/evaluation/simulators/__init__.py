"""Environments with known click probabilities, to test estimators and policies in."""
