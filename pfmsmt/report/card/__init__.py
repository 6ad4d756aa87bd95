"""The data card as pages and pictures."""
