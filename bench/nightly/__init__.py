"""Simulated nights: a world with a known truth fitted to a real log, and arms that learn in it."""
