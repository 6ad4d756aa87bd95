"""Flower's programs on this machine: starting, registering, keys, the demo."""
