"""The compiled inner loops, written in numba; libraries of them run without numba."""
