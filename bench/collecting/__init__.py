"""Clients, load generators and the peer server of the collector's benchmarks."""
