"""Training a supernet, and single architectures from it or from scratch."""
