"""Benchmarks: `python -m bench` lists them, `python -m bench NAME` runs one.

The last line of stdout is one JSON object. No test runs a benchmark.
"""
