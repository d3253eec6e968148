"""Worlds with a known truth, a file each, and the learners in them."""
