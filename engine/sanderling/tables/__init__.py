"""Reads tables in CSV: what a cell means, for the device and, on top of Arrow, for the lab."""
