"""What makes two jobs the same, and a result whole."""

from __future__ import annotations

import hashlib
from typing import Any

from devices.fleet.hub import refusals
from devices.fleet.messages import Description, JobRequest, Result, Samples
from devices.measuring.attempt import MOST_NEEDED
from devices.measuring.measurement import Measurement, plausible
from devices.measuring.store import canonical_json, measurement_key


def job_key(request: JobRequest, protocol: dict[str, Any], board: Description) -> str:
    """Return a job's idempotency key: model, runtime, version, parameters, protocol, board.

    Raises:
        Refusal: 422, the board does not offer the runtime.
    """
    versions = {offer.name: offer.version for offer in board.runtimes}
    if request.runtime not in versions:
        raise refusals.malformed(
            f"{request.device} does not offer runtime {request.runtime} "
            f"(it has: {', '.join(sorted(versions)) or 'none'})"
        )
    runtime = {
        "name": request.runtime,
        "version": versions[request.runtime],
        "parameters": request.parameters,
    }
    return measurement_key(request.model, runtime, protocol, board.fingerprint)


def whole_measurement(samples: Samples, runtime: str, protocol: dict[str, Any]) -> dict[str, Any]:
    """Return a measurement as it is kept, if every sample the protocol asks for is there.

    Raises:
        Refusal: 422, it is not whole or not of this job.
    """
    value = samples.model_dump(mode="json")
    try:
        read = Measurement.from_json(value)
    except (TypeError, KeyError, ValueError) as error:
        raise refusals.malformed(
            f"the measurement cannot be read: {type(error).__name__}"
        ) from None
    # An agent of a later version may have limits that this hub does not know.
    asked = all(samples.protocol.get(name) == wanted for name, wanted in protocol.items())
    if samples.runtime != runtime or not asked:
        raise refusals.malformed("the measurement is not by this job's runtime and protocol")
    if len(samples.calls) != len(samples.samples_ms):
        raise refusals.malformed("the measurement lacks calls or samples")
    if samples.valid and not plausible(read).valid:
        raise refusals.malformed(plausible(read).detail)
    if samples.valid:
        # Processes that met no quiet machine are among the rejected, and others may have been
        # added for them.
        enough = min(MOST_NEEDED, protocol["processes"])
        whole = {len(process) for process in samples.samples_ms} == {protocol["runs"]}
        if len(samples.samples_ms) < enough or not whole:
            raise refusals.malformed("the measurement lacks samples of its protocol")
        if samples.latency_ms is None or samples.low_ms is None or samples.high_ms is None:
            raise refusals.malformed("a valid measurement has figures")
    return value


def digest(result: Result) -> str:
    """Return a hash of an outcome, by which a second delivery is recognised."""
    content = {
        "measurement": result.measurement and result.measurement.model_dump(mode="json"),
        "failure": result.failure and result.failure.model_dump(mode="json"),
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
