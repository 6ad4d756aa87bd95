"""The generated data set, with planted probabilities."""
