"""Is this machine fit to measure latencies on? A look at its settings and a second of work.

``nas device calibrate`` answers the same by real measurements, in minutes; this look says what
to change first. Everything is read through a reader, so that other machines can be played.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devices.measuring.conditions import Reader, allowed_cores, read_conditions, read_system_file

MOST_LOAD_PER_CORE = 0.3
MOST_JITTER = 0.10


@dataclass(frozen=True)
class MachineCheck:
    """One thing looked at.

    Attributes:
        name: what.
        ok: true, false, or None where the machine does not tell.
        detail: what was seen.
        advice: what to do where it is not well.
    """

    name: str
    ok: bool | None
    detail: str
    advice: str = ""


def machine_checks(
    *,
    reader: Reader = read_system_file,
    cores: Sequence[int] | None = None,
    total_cores: int | None = None,
    jitter: Callable[[], float] | None = None,
) -> list[MachineCheck]:
    """Look at governor, turbo, load, cores, virtualisation, temperature, energy and jitter.

    Args:
        reader: path under /sys or /proc -> its text, or None.
        cores: that this process may use.
        total_cores: of the machine.
        jitter: returns how far the slowest tenth of equal pieces of work lies above the median.
    """
    cores = allowed_cores() if cores is None else list(cores)
    total_cores = (os.cpu_count() or 1) if total_cores is None else total_cores
    state = read_conditions(cores, reader=reader)
    return [
        _governor(state),
        _turbo(reader),
        _load(state, total_cores),
        _spare(cores),
        _virtual(reader),
        _temperature(state),
        _energy(reader),
        _jitter((jitter or work_jitter)()),
    ]


def verdict(checks: Sequence[MachineCheck]) -> str:
    """Return one sentence on all checks together."""
    doubts = [check.name for check in checks if check.ok is False]
    if not doubts:
        return "nothing here speaks against it; check with: nas device calibrate"
    return (
        f"with care, because of: {', '.join(doubts)}. The protocol rejects what they spoil; "
        "check with: nas device calibrate"
    )


def work_jitter(pieces: int = 300) -> float:
    """Return how far the slowest tenth of equal pieces of work lies above the median, a share.

    A piece is a matrix product of about a quarter of a millisecond on one thread.
    """
    import numpy as np

    matrix = np.ones((160, 160), dtype=np.float32)
    times = np.empty(pieces)
    for i in range(pieces):
        start = time.perf_counter_ns()
        for _ in range(2):
            np.einsum("ij,jk->ik", matrix, matrix, optimize=False)
        times[i] = time.perf_counter_ns() - start
    return float(np.quantile(times, 0.9) / np.median(times) - 1)


def _governor(state: dict) -> MachineCheck:
    governor = state["governor"]
    if governor is None:
        return MachineCheck("governor", None, "the machine does not say; frequencies may change")
    return MachineCheck(
        "governor",
        governor == "performance",
        governor,
        "pin the frequency: sudo cpupower frequency-set -g performance",
    )


def _turbo(reader: Reader) -> MachineCheck:
    for path, off in (
        ("/sys/devices/system/cpu/intel_pstate/no_turbo", "1"),
        ("/sys/devices/system/cpu/cpufreq/boost", "0"),
    ):
        text = reader(path)
        if text is not None:
            is_off = text.strip() == off
            return MachineCheck(
                "turbo",
                is_off,
                "off" if is_off else "on: clocks depend on temperature and on other cores",
                f"switch it off while measuring: echo {off} | sudo tee {path}",
            )
    return MachineCheck("turbo", None, "the machine does not say")


def _load(state: dict, total: int) -> MachineCheck:
    load = state["load_1m"]
    if load is None:
        return MachineCheck("load", None, "the machine does not say")
    return MachineCheck(
        "load",
        load <= MOST_LOAD_PER_CORE * total,
        f"{load:.2f} processes in the last minute on {total} cores",
        "stop other work, or measure on another machine",
    )


def _spare(cores: Sequence[int]) -> MachineCheck:
    return MachineCheck(
        "cores",
        len(cores) >= 2,
        f"{len(cores)} usable",
        "a measurement shares its only core with everything else; give it a second one",
    )


def _virtual(reader: Reader) -> MachineCheck:
    info = reader("/proc/cpuinfo") or ""
    vendor = reader("/sys/class/dmi/id/sys_vendor")
    container = any(
        word in (reader("/proc/1/cgroup") or "") for word in ("docker", "lxc", "kubepods")
    )
    if container:
        return MachineCheck(
            "virtualisation",
            False,
            "a container",
            "others share the processor; pin it to own cores",
        )
    flags = next((line for line in info.splitlines() if line.startswith("flags")), None)
    if flags is None:
        return MachineCheck("virtualisation", None, "the machine does not say")
    if "hypervisor" in flags.split():
        return MachineCheck(
            "virtualisation",
            False,
            f"a virtual machine{f' ({vendor})' if vendor else ''}",
            "neighbours may take the processor; figures hold for this machine at this time",
        )
    return MachineCheck("virtualisation", True, "none seen")


def _temperature(state: dict) -> MachineCheck:
    hot, throttled = state["temperature_c"], state["throttle_count"]
    if hot is None and throttled is None:
        return MachineCheck("temperature", None, "the machine does not say")
    parts = [] if hot is None else [f"{hot:.0f} degrees Celsius"]
    if throttled is not None:
        parts.append(f"throttled {throttled:.0f} times since it started")
    return MachineCheck(
        "temperature", hot is None or hot < 80, ", ".join(parts), "let it cool, or cool it better"
    )


def _energy(reader: Reader) -> MachineCheck:
    counter = reader("/sys/class/powercap/intel-rapl:0/energy_uj")
    return MachineCheck(
        "energy",
        None if counter is None else True,
        "RAPL is readable" if counter is not None else "no RAPL counter can be read",
        "energy_mj stays empty without a counter; name a sensor as protocol.energy_source",
    )


def _jitter(share: float) -> MachineCheck:
    return MachineCheck(
        "steadiness",
        share <= MOST_JITTER,
        f"the slowest tenth of equal work takes {100 * share:.0f} % more than the median",
        "something else runs; see it with: top",
    )
