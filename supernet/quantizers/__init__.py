"""Fake quantisers: learned steps and their alternatives, by name."""
