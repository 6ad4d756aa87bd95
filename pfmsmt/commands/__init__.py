"""The commands and stages, from the configuration to the files they write."""
