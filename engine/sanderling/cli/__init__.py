"""The commands of a device."""
