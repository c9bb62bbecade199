"""A job device that estimates latencies from a model of hardware."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devices.device import Device, DeviceSpec, Done
from devices.measuring.protocol import Protocol
from devices.measuring.store import Query
from devices.simulators.estimates import estimated_measurement
from devices.simulators.hardware import Hardware, read_hardware
from devices.simulators.roofline import estimate_genes
from search_spaces.errors import InputError
from search_spaces.planned import PlannedSpace

VERSION = "1"
"""Of the roofline: raised when its estimates change."""


class RooflineDevice(Device):
    """Answers as a device does, with what :mod:`devices.simulators.roofline` computes.

    The architecture decides, not the file: bits count, and the file's format does not. Each
    measurement says ``latency_source: estimated`` and carries the energy; its interval is
    the estimate itself, because a model has no spread.

    Args:
        name: what the device is called.
        hardware: the description.
        space: the space whose architectures it is asked about.
        batch: images at a time.
    """

    def __init__(
        self, name: str, hardware: Hardware, space: PlannedSpace, *, batch: int = 1
    ) -> None:
        options = {"hardware": hardware.name}
        super().__init__(DeviceSpec(name, runtime="roofline", batch=batch, options=options))
        self.hardware = hardware
        self.space = space

    def check(self) -> None:
        """Nothing is needed."""

    def fingerprint(self) -> dict[str, Any]:
        """Return the description's name and hash: what decides the estimates."""
        text = self.hardware.model_dump_json()
        digest = hashlib.sha256(text.encode()).hexdigest()
        return {"hardware": self.hardware.name, "description_sha256": digest}

    def _identify(self) -> dict[str, Any]:
        runtime = {"name": "roofline", "version": VERSION, "parameters": self.spec.parameters}
        return {"runtime": runtime, "fingerprint": self.fingerprint()}

    def _measure(self, queries: Sequence[Query], protocol: Protocol, done: Done) -> None:
        missing = [str(query.model) for query in queries if not query.arch]
        if missing:
            raise InputError(
                f"a simulated device estimates architectures, and {missing[0]} came without one"
            )
        genes = self.space.genes([self.space.parse(query.arch) for query in queries])
        found = estimate_genes(self.space, genes, self.hardware, batch=self.spec.batch)
        for i, query in enumerate(queries):
            latency = float(found.latency_ms[i])
            details = {
                "compute_share": float(found.compute_share[i]),
                **self.fingerprint(),
            }
            estimate = estimated_measurement(
                latency,
                runtime="roofline",
                version=VERSION,
                parameters=self.spec.parameters,
                protocol=protocol,
                details=details,
                energy_mj=float(found.energy_mj[i]),
            )
            done(query.key, estimate)


def make_simulated_device(
    name: str,
    *,
    simulator: str,
    hardware: str | Path,
    space: PlannedSpace,
    batch: int = 1,
    options: Mapping[str, Any] | None = None,
) -> Device:
    """Build the device that a job describes with ``simulator`` and ``hardware``.

    Args:
        simulator: "roofline" or "vela".
        hardware: for the roofline, name of a description in the package or path of one; for
            Vela an accelerator, such as "ethos-u55-128".
        options: for Vela ``system_config`` and ``memory_mode``.

    Raises:
        InputError: an unknown simulator, hardware or option, or a wrong description.
    """
    options = dict(options or {})
    allowed = {"roofline": set(), "vela": {"system_config", "memory_mode"}}
    if simulator not in allowed:
        raise InputError(f"unknown simulator {simulator!r} (available: {', '.join(allowed)})")
    unknown = sorted(set(options) - allowed[simulator])
    if unknown:
        known = ", ".join(sorted(allowed[simulator])) or "none"
        raise InputError(f"simulator {simulator!r} has no option {unknown[0]!r} (it has {known})")
    if simulator == "vela":
        from devices.simulators.vela import VelaDevice

        return VelaDevice(name, str(hardware), batch=batch, **options)
    if not isinstance(space, PlannedSpace):
        raise InputError(
            f"a roofline needs a space that knows its layers, which {space.name!r} does not"
        )
    return RooflineDevice(name, read_hardware(hardware), space, batch=batch)
