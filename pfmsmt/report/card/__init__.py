"""The data card: facts -> tables, pictures -> page."""
