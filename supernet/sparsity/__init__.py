"""Weights that are zero by a pattern: after training, and kept so while training goes on."""
