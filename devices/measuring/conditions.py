"""The state of the machine around a measurement, read from Linux' /sys and /proc.

Everything goes through a reader, a function from a path to its text or None, so that
another machine (a throttling board, a busy server) can be played to the protocol. A
file that is absent gives None, never a guess.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search_spaces.errors import InputError

Reader = Callable[[str], "str | None"]

_CPU = "/sys/devices/system/cpu/cpu{}"
_THERMAL = "/sys/class/thermal/{}"


def read_system_file(path: str) -> str | None:
    """Return the stripped text of a file under /sys or /proc, or None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def read_conditions(cores: Sequence[int], *, reader: Reader = read_system_file) -> dict[str, Any]:
    """Return what can change a latency at this moment.

    Args:
        cores: the cores the measurement is kept on; the slowest of them is reported. When
            empty, no frequency is: that of an idle core says nothing.
        reader: source of the files.

    Returns:
        ``governor``, ``frequency_mhz`` (now), ``frequency_limits_mhz``, ``temperature_c``
        (hottest zone), ``throttle_count`` (Intel's event counters), ``cooling_state``
        (highest state of a processor's cooling device), ``load_1m``, ``steal_ticks``
        (time taken by a hypervisor); None where the machine does not say.
    """
    frequencies = [number_in(reader(f"{_CPU.format(c)}/cpufreq/scaling_cur_freq")) for c in cores]
    lowest = [number_in(reader(f"{_CPU.format(c)}/cpufreq/scaling_min_freq")) for c in cores]
    highest = [number_in(reader(f"{_CPU.format(c)}/cpufreq/scaling_max_freq")) for c in cores]
    throttles = [
        number_in(reader(f"{_CPU.format(c)}/thermal_throttle/{which}_throttle_count"))
        for c in cores
        for which in ("core", "package")
    ]
    load = reader("/proc/loadavg")
    return {
        "governor": reader(f"{_CPU.format(cores[0] if cores else 0)}/cpufreq/scaling_governor"),
        "frequency_mhz": _scaled(_least(frequencies), 1e-3),
        "frequency_limits_mhz": _limits(_least(lowest), _least(highest)),
        "temperature_c": _hottest(reader),
        "throttle_count": _total(throttles),
        "cooling_state": _cooling(reader),
        "load_1m": number_in(load.split()[0]) if load else None,
        "steal_ticks": _total([_column(reader, core, 8) for core in cores]),
    }


def frequency_pinned(conditions: Mapping[str, Any]) -> bool:
    """Whether the frequency was fixed: by the governor or by equal limits."""
    limits: Any = conditions.get("frequency_limits_mhz")
    fixed = bool(limits) and limits[0] == limits[1]
    return fixed or conditions.get("governor") == "performance"


def machine() -> dict[str, Any]:
    """Return kernel, operating system and Python: what does not change while measuring."""
    return {
        "kernel": platform.release(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def has_dot_products(*, reader: Reader = read_system_file) -> bool:
    """Whether the processor has 8-bit dot products, whose sums cannot saturate.

    x86 without VNNI adds pairs of products in 16 bits; Arm widens before it adds.
    """
    info = reader("/proc/cpuinfo") or ""
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "")
    return not flags or bool(set(flags.split()) & {"avx512_vnni", "avx_vnni"})


def allowed_cores() -> list[int]:
    """Return the cores this process may use, as the scheduler numbers them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def choose_cores(
    count: int,
    *,
    allowed: Sequence[int] | None = None,
    reader: Reader = read_system_file,
    sleep: Callable[[float], None] = time.sleep,
) -> list[int]:
    """Return ``count`` cores of the fastest kind, the idlest first.

    On a processor with big and little cores a measurement must stay on one kind; on a
    shared machine it should stay off the cores that others use.

    Raises:
        InputError: the process may not use that many cores.
    """
    candidates = list(allowed_cores() if allowed is None else allowed)
    if count > len(candidates):
        raise InputError(
            f"{count} threads were asked for, but this process may use {len(candidates)} cores; "
            f"lower threads"
        )
    speed = {core: _speed(reader, core) for core in candidates}
    busy = {core: 0.0 for core in candidates}
    if count < len(candidates):
        before = {core: _busy(reader, core) for core in candidates}
        sleep(0.05)  # five ticks of the kernel's accounting, hidden beside a process start
        busy = {core: _busy(reader, core) - before[core] for core in candidates}
    # Later cores first among equals: interrupts are served by the first ones.
    order = sorted(candidates, key=lambda core: (-speed[core], busy[core], -core))
    return sorted(order[:count])


def _speed(reader: Reader, core: int) -> float:
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        value = number_in(reader(f"{_CPU.format(core)}/{name}"))
        if value is not None:
            return value
    return 0.0


def _busy(reader: Reader, core: int) -> float:
    # user, nice, system, irq, softirq and steal; not idle and iowait.
    columns = (1, 2, 3, 6, 7, 8)
    return sum(_column(reader, core, column) or 0.0 for column in columns)


def _column(reader: Reader, core: int, column: int) -> float | None:
    for line in (reader("/proc/stat") or "").splitlines():
        fields = line.split()
        if fields and fields[0] == f"cpu{core}":
            return number_in(fields[column]) if column < len(fields) else None
    return None


def _hottest(reader: Reader) -> float | None:
    zones = []
    for index in range(64):
        text = reader(f"{_THERMAL.format(f'thermal_zone{index}')}/temp")
        if text is None:
            break
        zones.append(number_in(text))
    return _scaled(max((zone for zone in zones if zone is not None), default=None), 1e-3)


def _cooling(reader: Reader) -> float | None:
    states = []
    for index in range(64):
        base = _THERMAL.format(f"cooling_device{index}")
        kind = reader(f"{base}/type")
        if kind is None:
            break
        if "cpu" in kind.lower() or "processor" in kind.lower():
            states.append(number_in(reader(f"{base}/cur_state")))
    return max((state for state in states if state is not None), default=None)


def number_in(text: str | None) -> float | None:
    """Return the number that a file of the system holds, or None."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _total(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) if present else None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _limits(low: float | None, high: float | None) -> list[float] | None:
    return None if low is None or high is None else [low * 1e-3, high * 1e-3]
