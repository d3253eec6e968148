"""Trains and evaluates policies, receives events, retrains, and publishes releases."""
