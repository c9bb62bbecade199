"""Faults in the codes of a quantised network, and training that expects them."""
