"""The options of an engine, checked once."""
