"""The data card: contents of the shards, their quality, and drift."""
