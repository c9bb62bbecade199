"""The built-in search spaces and their registry."""
