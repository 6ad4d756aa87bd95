"""The comparison of methods, from what evaluation and training left on disk."""
