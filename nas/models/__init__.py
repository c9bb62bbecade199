"""Exported models: checked against their networks, described, handed over."""
