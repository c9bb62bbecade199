"""Linear layers whose weights alone get few bits: quantisers, and applying them to a model."""
