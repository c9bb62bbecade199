"""The latencies of a front and of a family, measured together on the devices of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import NasError

if TYPE_CHECKING:
    from devices.device import Device
    from devices.measuring.protocol import Protocol
    from devices.measuring.store import Store
    from nas.job.schema import Job
    from search_spaces.planned import PlannedSpace


@dataclass(frozen=True)
class Measured:
    """What was measured on one device.

    Attributes:
        device: its name.
        models: name of a model -> ``latency_ms``, ``low_ms``, ``high_ms`` and ``valid``; without
            those that the device cannot run.
        failed: name of a model -> why there is no latency.
        unavailable: why nothing was measured, or None.
    """

    device: str
    models: Mapping[str, Mapping[str, Any]]
    failed: Mapping[str, str]
    unavailable: str | None = None


def interleaved(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Return both lists in one, so that any stretch holds them in proportion.

    A device measures models in groups of neighbours; what disturbs it then meets both alike.
    """
    places = [((i + 0.5) / len(part), name) for part in (first, second)
              for i, name in enumerate(part)]  # fmt: skip
    return [name for _, name in sorted(places, key=lambda place: place[0])]


def measure_together(
    job: Job,
    space: PlannedSpace,
    front: Mapping[str, Path],
    family: Mapping[str, Path],
    *,
    store: Store | None,
    make: Callable[..., Device],
    tell: Callable[[str], None] = lambda text: None,
) -> list[Measured]:
    """Measure both sets of models on each device of the job, by its protocol.

    Args:
        job: of the run.
        space: of the run; devices are made for it.
        front, family: name -> model file, cheapest first; names differ.
        store: where measurements are kept, so that none is made twice.
        make: makes a device of an entry of the job, as :func:`nas.job.devices.make_device`.
        tell: told what is going on.
    """
    files = {**front, **family}
    order = interleaved(list(front), list(family))
    protocol: Protocol = job.measurement_protocol()
    found = []
    for config in job.devices:
        if config.simulator is not None:
            why = "a simulator estimates architectures of the job's space only"
            found.append(Measured(config.name, {}, {}, why))
            continue
        tell(f"latency of {len(order)} models on {config.name}")
        try:
            measurements = make(config, space).measure(
                [files[name] for name in order],
                variant="value study",
                protocol=protocol,
                store=store,
            )
        except NasError as error:
            # The accuracies were expensive and hold without this device; the result names why.
            found.append(Measured(config.name, {}, {}, str(error)))
            tell(f"{config.name} is left out: {error}")
            continue
        models, failed = {}, {}
        for name, measurement in zip(order, measurements, strict=True):
            if not math.isfinite(measurement.latency_ms):
                failed[name] = measurement.detail or "it cannot run the model"
                continue
            models[name] = {
                "latency_ms": measurement.latency_ms,
                "low_ms": measurement.low_ms,
                "high_ms": measurement.high_ms,
                "valid": measurement.valid,
            }
        found.append(Measured(config.name, models, failed))
    return found
