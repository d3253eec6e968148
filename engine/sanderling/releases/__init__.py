"""Which bundle is active, and how releases are fetched, verified, tried and rolled back."""
