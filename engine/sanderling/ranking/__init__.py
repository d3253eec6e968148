"""Scores and ranks the items of a bundle."""
