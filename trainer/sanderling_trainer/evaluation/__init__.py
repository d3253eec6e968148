"""Ranking metrics, baselines, off-policy estimators and simulators."""
