"""The data card: what the shards hold, how good it is, and how far it drifts."""
