"""Bit allocation for one trained network as an integer programme."""
