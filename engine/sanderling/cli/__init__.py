"""The command line on a device."""
