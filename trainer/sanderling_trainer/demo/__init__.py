"""The whole loop on MovieLens-100K, with real processes."""
