"""The hub that boards dial into: tokens, model files, a queue of measurements, leases.

Needs the extra ``hub`` for :mod:`devices.hub.app` and :mod:`devices.hub.server` only.
"""
