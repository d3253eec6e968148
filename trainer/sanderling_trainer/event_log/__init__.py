"""The log of stored events: segments, daily files, and the examples that are made of them."""
