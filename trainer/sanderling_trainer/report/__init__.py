"""The report for people: figures from events, checkpoints and the demo, on one HTML page."""
