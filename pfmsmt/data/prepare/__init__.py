"""From raw files to client shards: download, partition, and agreement between sites."""
