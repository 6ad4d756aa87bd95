"""MovieLens: the published archives, and the log of ratings they hold."""
