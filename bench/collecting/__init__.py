"""The servers, the load and the client of `bench collect`."""
