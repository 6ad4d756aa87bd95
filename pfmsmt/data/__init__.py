"""From raw files to client shards: sources, download, partition and the schema they share."""
