"""Tables as users bring them: reading files, and the rules for values."""
