"""Client shards on disk and in memory: writing, reading, order, streaming."""
