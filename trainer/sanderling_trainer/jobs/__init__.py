"""Periodic jobs over the event log: retrain, compact, erase, rotate identities."""
