"""For tests of devices and of what is built on them: a hub with faults, models, contracts."""

from devices.testing.fleet import Faults, HubNetwork, InstantSampler, Killed, ManualClock

__all__ = ["Faults", "HubNetwork", "InstantSampler", "Killed", "ManualClock"]
