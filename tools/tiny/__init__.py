"""Makes the bundle of `sanderling demo --tiny`: `make tiny`."""
