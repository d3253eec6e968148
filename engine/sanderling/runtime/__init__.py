"""Clocks, ids, fork safety and durable file writes."""
