"""``nas bits``: the best mixed-precision allocation for a trained network."""

from nas.cli.bits.command import app

__all__ = ["app"]
