"""Exact integer forms of what a packed model computes in floats."""
