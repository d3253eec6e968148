"""Clients and servers of the upload benchmark's contenders, each in its own process."""
