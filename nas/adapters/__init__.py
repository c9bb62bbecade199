"""Searching among sub-adapters of a language model."""
