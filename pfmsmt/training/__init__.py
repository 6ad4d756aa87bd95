"""Federated rounds: the driver, the clients, and a run from data to models."""
