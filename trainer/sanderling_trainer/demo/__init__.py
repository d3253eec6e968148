"""The full loop on MovieLens-100K with real processes, and its report."""
