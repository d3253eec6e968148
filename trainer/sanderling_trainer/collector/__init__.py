"""The HTTP server that receives events from devices."""
