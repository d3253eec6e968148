"""The HTTP server that takes events from devices."""
