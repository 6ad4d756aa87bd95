"""The server of a federation across machines."""
