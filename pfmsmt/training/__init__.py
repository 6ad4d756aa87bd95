"""Federated rounds, from data to models: driver, clients, and runs."""
