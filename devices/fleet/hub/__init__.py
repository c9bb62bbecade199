"""The hub that boards dial into: tokens, model files, a queue of measurements, leases.

Needs the extra ``hub`` for :mod:`devices.fleet.hub.app` and :mod:`devices.fleet.hub.server` only.
"""
