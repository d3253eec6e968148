"""The compiled kernels: written in numba, run from a library that needs no numba, or compiled where they run."""
