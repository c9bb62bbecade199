"""Estimates in the form of measurements, labelled as what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from devices.measuring.measurement import Measurement
from devices.measuring.protocol import Protocol

ESTIMATED = "estimated"
"""Value of ``conditions["latency_source"]`` of every measurement of a simulated device."""


def estimated_measurement(
    latency_ms: float,
    *,
    runtime: str,
    version: str,
    parameters: Mapping[str, Any],
    protocol: Protocol,
    details: Mapping[str, Any],
    energy_mj: float | None = None,
) -> Measurement:
    """Return an estimate in the form of a measurement, labelled as one."""
    return Measurement(
        latency_ms=latency_ms,
        low_ms=latency_ms,
        high_ms=latency_ms,
        iqr_ms=0.0,
        p90_ms=latency_ms,
        p99_ms=latency_ms,
        mad_ms=0.0,
        samples_ms=((latency_ms,),),
        calls=(1,),
        valid=True,
        reasons=(),
        attempts=1,
        rejected=(),
        runtime=runtime,
        runtime_version=version,
        parameters=dict(parameters),
        protocol=protocol.to_json(),
        conditions={"latency_source": ESTIMATED, **details},
        pinned=False,
        detail="estimated, not measured",
        energy_mj=energy_mj,
    )
