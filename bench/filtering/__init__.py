"""Peers of `bench rules` in environments of their own."""
