"""The synthetic world of `bench scale`."""
