"""What the kernel counts of this process: waiting, and where it allows it, hardware events.

Hardware counters (``perf_event_open``, see its manual page) exist on a machine of one's own
and seldom in a container or a virtual machine. Instructions do not depend on who else is
there, and cycles do not depend on the clock, so both explain a latency; neither replaces one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

_NUMBERS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "armv7l": 364, "armv8l": 364}
"""Machine -> number of the system call ``perf_event_open``."""
_HARDWARE = 0
_EVENTS = {"cycles": 0, "instructions": 1}
_SIZE = 112
"""Bytes of ``struct perf_event_attr`` as of its version 5, which every later kernel takes."""
_INHERIT, _NO_KERNEL, _NO_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6

Open = Callable[[bytes], int]
"""Opens the event of a ``perf_event_attr`` for this process; a file descriptor, or below 0."""


@dataclass(frozen=True)
class Counts:
    """Events of this process in user mode, over some time."""

    cycles: float
    instructions: float


class Counters(ABC):
    """Counts from ``start`` to ``stop``."""

    @abstractmethod
    def start(self) -> None:
        """Begin."""

    @abstractmethod
    def stop(self) -> Counts | None:
        """End; return what was counted since ``start``, or None where nothing is known."""


class NoCounters(Counters):
    """A kernel that gives none."""

    def start(self) -> None:
        """Nothing to do."""

    def stop(self) -> Counts | None:
        """See :meth:`Counters.stop`: nothing is known."""
        return None


class PerfCounters(Counters):
    """Reads open file descriptors of ``perf_event_open``, cycles first, then instructions.

    Args:
        descriptors: of the two events; owned, and closed by :meth:`close`.
        read: reads the eight bytes of a counter.
    """

    def __init__(
        self, descriptors: tuple[int, int], *, read: Callable[[int, int], bytes] = os.read
    ) -> None:
        self._descriptors, self._read = descriptors, read
        self._before = (0, 0)

    def start(self) -> None:
        """See :meth:`Counters.start`."""
        self._before = self._values()

    def stop(self) -> Counts | None:
        """See :meth:`Counters.stop`: None where the counters stand still, as some guests' do."""
        after = self._values()
        cycles, instructions = (b - a for a, b in zip(self._before, after, strict=True))
        # A guest whose counters stand still has none.
        return Counts(cycles, instructions) if cycles > 0 and instructions > 0 else None

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _values(self) -> tuple[int, int]:
        cycles, instructions = (
            struct.unpack("Q", self._read(descriptor, 8))[0] for descriptor in self._descriptors
        )
        return cycles, instructions


def make_counters(*, open_event: Open | None = None) -> Counters:
    """Return hardware counters of this process and its threads, or :class:`NoCounters`.

    Args:
        open_event: makes the system call; by default libc's, where there is a number for it.
    """
    opened = open_event or _system_call()
    if opened is None:
        return NoCounters()
    found: list[int] = []
    for event in _EVENTS.values():
        descriptor = opened(_attributes(event))
        if descriptor < 0:
            for other in found:
                with contextlib.suppress(OSError):
                    os.close(other)
            return NoCounters()
        found.append(descriptor)
    return PerfCounters((found[0], found[1]))


def waited_ns(*, folder: str = "/proc/self/task") -> int:
    """Return how long threads of this process have waited for a core since they began, ns.

    The kernel's run delay, summed over the threads that live; 0 where it is not counted.
    """
    total = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(folder):
            with (
                contextlib.suppress(OSError, ValueError, IndexError),
                open(f"{folder}/{thread}/schedstat", encoding="ascii") as file,
            ):
                total += int(file.read().split()[1])
    return total


def _attributes(event: int) -> bytes:
    """Return ``perf_event_attr``: type, size, config, then flags at byte 40."""
    head = struct.pack("IIQQQQ", _HARDWARE, _SIZE, event, 0, 0, 0)
    flags = struct.pack("Q", _INHERIT | _NO_KERNEL | _NO_HYPERVISOR)
    return (head + flags).ljust(_SIZE, b"\0")


def _system_call() -> Open | None:
    number = _NUMBERS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def open_event(attributes: bytes) -> int:
        buffer = ctypes.create_string_buffer(attributes, _SIZE)
        # This process, any core, no group, no flags.
        return int(libc.syscall(number, buffer, 0, -1, -1, 0))

    return open_event
