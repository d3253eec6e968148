"""The policy: its encoder, network, losses and fitting. Refuses to know files of logs and servers."""
