"""Boards: whether they are fit to measure on, learning to predict them, checking models on them."""
