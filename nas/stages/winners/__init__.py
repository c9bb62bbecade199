"""The winners of a search: who they are, how they share the time, and their training."""
