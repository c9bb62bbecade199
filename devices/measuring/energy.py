"""Energy of a run, where the machine exposes it through sysfs; None elsewhere.

Counters (Linux powercap: RAPL of Intel and AMD; hwmon ``energy*_input``) give it directly.
Power sensors (hwmon ``power*_input``: INA226, INA3221 and the like on boards) are read while
the model runs. Both see the whole package or rail, idle power included.
"""

from __future__ import annotations

import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from devices.measuring.conditions import Reader, number_in, read_system_file
from search_spaces.errors import InputError

_RAPL = "/sys/class/powercap/intel-rapl:{}"
_PACKAGES = 8
_POLL_S = 0.01


class EnergyMeter(ABC):
    """Measures from ``start`` to ``stop``; one run at a time."""

    @abstractmethod
    def start(self) -> None:
        """Begin."""

    @abstractmethod
    def stop(self) -> float | None:
        """End; return the energy since ``start`` in mJ, or None where nothing is known."""


class NoMeter(EnergyMeter):
    """A machine that exposes nothing."""

    def start(self) -> None:
        """Nothing to do."""

    def stop(self) -> float | None:
        """See :meth:`EnergyMeter.stop`: nothing is known."""
        return None


class CounterMeter(EnergyMeter):
    """Sums counters in uJ that only grow, but for an overflow at ``max_energy_range_uj``."""

    def __init__(self, paths: Sequence[str], *, reader: Reader = read_system_file) -> None:
        self._paths = list(paths)
        self._reader = reader
        self._before: list[float | None] = []

    def start(self) -> None:
        """See :meth:`EnergyMeter.start`."""
        self._before = [number_in(self._reader(path)) for path in self._paths]

    def stop(self) -> float | None:
        """See :meth:`EnergyMeter.stop`: one overflow of each counter is made up for."""
        total = 0.0
        for path, before in zip(self._paths, self._before, strict=True):
            after = number_in(self._reader(path))
            if before is None or after is None:
                return None
            if after < before:
                span = number_in(self._reader(f"{path.rpartition('/')[0]}/max_energy_range_uj"))
                if span is None:
                    return None
                after += span
            total += after - before
        return total * 1e-3


class PowerMeter(EnergyMeter):
    """Integrates a power sensor in uW, read every few ms by a thread (trapezoids)."""

    def __init__(
        self,
        path: str,
        *,
        reader: Reader = read_system_file,
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = _POLL_S,
    ) -> None:
        self._path, self._reader, self._clock, self._poll_s = path, reader, clock, poll_s
        self._points: list[tuple[float, float]] = []
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """See :meth:`EnergyMeter.start`: of a thread that reads the sensor."""
        self._points, self._stopped = [], threading.Event()
        self._read()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> float | None:
        """See :meth:`EnergyMeter.stop`: None where the sensor was read less than twice."""
        assert self._thread is not None
        self._stopped.set()
        self._thread.join()
        self._read()
        if len(self._points) < 2:
            return None
        pairs = zip(self._points, self._points[1:], strict=False)
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs) * 1e-3

    def _follow(self) -> None:
        while not self._stopped.wait(self._poll_s):
            self._read()

    def _read(self) -> None:
        value = number_in(self._reader(self._path))
        if value is not None:
            self._points.append((self._clock(), value))


def make_meter(source: str | None, *, reader: Reader = read_system_file) -> EnergyMeter:
    """Return the meter of this machine.

    Args:
        source: path of a counter (``energy_uj``, ``energy1_input``) or of a power sensor
            (``power1_input``); None looks for RAPL.

    Raises:
        InputError: the path is of neither kind, or cannot be read.
    """
    if source is None:
        packages = [f"{_RAPL.format(i)}/energy_uj" for i in range(_PACKAGES)]
        found = [path for path in packages if number_in(reader(path)) is not None]
        return CounterMeter(found, reader=reader) if found else NoMeter()
    name = source.rpartition("/")[2]
    if not re.fullmatch(r"energy_uj|energy\d+_input|power\d+_(input|average)", name):
        raise InputError(
            f"energy source {source!r} is no energy counter in uJ (energy_uj, energyN_input) and "
            f"no power sensor in uW (powerN_input)"
        )
    if number_in(reader(source)) is None:
        raise InputError(f"energy source {source!r} cannot be read; check its permissions")
    if name.startswith("energy"):
        return CounterMeter([source], reader=reader)
    return PowerMeter(source, reader=reader)
