"""Tables, histories, splits and shards."""
