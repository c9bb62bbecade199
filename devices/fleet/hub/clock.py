"""The hub's two clocks: one to count with, one to write down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """``monotonic`` (s) decides about leases, so that a stepped clock changes nothing.

    ``wall`` (Unix time, s) is recorded and shown, and decides when tokens expire.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
