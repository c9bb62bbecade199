"""Training a part of an integer network where it runs: what to train, and the update itself."""
