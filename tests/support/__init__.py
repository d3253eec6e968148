"""Shared by the tests: fakes, fixtures, crashing processes, slow references, a simulated fleet."""
