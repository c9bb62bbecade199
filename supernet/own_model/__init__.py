"""A torch module of the user's as a graph of layers, and as a search space."""
