"""Errors, types, named arrays, metrics, files and the console, for all rooms."""
