"""Sends stored events to the collector."""
