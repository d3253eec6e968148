"""Environments with known click probabilities, in which estimators and policies can be checked."""
