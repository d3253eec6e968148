"""The events that travel from the device to the collector: schema, bytes and meaning."""
