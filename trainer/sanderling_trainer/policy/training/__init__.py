"""How the policy network is trained: warm start, then policy gradient."""
