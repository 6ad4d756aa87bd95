"""From raw files to client shards: sources, preparation, shards and the card."""
