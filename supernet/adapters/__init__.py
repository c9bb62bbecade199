"""Elastic low-rank adapters on frozen, and perhaps quantised, language models."""
