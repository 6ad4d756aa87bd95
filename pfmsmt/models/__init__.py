"""The client's model: an MMoE whose every tensor has a role."""
