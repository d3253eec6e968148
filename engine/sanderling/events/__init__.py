"""The events that travel from the device to the lab: schema, bytes and meaning."""
