"""Servers and jobs around the fleet: collector, releases, retraining, the demo and its report."""
