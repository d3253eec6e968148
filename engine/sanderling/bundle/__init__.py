"""What the lab and the device agree on. Knows formats; refuses to know models, networks and learning."""
