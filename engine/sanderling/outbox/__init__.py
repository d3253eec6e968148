"""Durable storage of events and user states."""
