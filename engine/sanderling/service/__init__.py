"""`sanderling serve`: the API of an engine as JSON over HTTP, for apps in other languages."""
