"""Latency tables: what they say, their files, and the spaces they are over."""
