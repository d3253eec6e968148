"""Ranking real data: data sets, protocols, and the models that are compared."""
