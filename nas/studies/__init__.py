"""Studies of whether the figures a search relies on can be trusted."""
