"""Compiled inner loops: written in numba, run from a library that needs no numba, or compiled at
run time."""
