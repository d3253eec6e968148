"""The policy: its network, how it is trained, and its checkpoints."""
