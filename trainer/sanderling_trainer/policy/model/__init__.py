"""The policy network and the language model under it."""
