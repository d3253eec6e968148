"""Environments with a known truth, a file each, and the policies compared in them."""
