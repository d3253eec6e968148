"""Worlds with a known truth, in which any policy can be tried and its value is known. Refuses to know policies."""
