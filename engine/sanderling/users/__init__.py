"""What the device knows of its users."""
