"""Made-up data in other languages for `bench.languages`."""
