"""Benchmarks: `python -m bench NAME`. The last line of stdout is one JSON object. Never part of a test."""
