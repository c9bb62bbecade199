"""One measurement: its figures, every raw sample, and the judgement on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from typing import Any


class Reason(str, Enum):
    """Why a sample was rejected."""

    THROTTLING = "throttling"
    FREQUENCY_DROP = "frequency-drop"
    DRIFT = "drift-between-halves"
    REFERENCE_DRIFT = "reference-model-drift"
    SPREAD = "process-medians-apart"
    INTERVAL = "interval-too-wide"
    LOAD = "background-load"
    SCATTERED = "runs-scattered"
    UNSETTLED = "warm-up-did-not-settle"
    NON_FINITE = "output-not-finite"
    FAILED = "model-failed"
    CRASHED = "process-crashed"
    DEADLINE = "deadline-passed"
    MEMORY = "memory-limit"
    IMPOSSIBLE = "impossible-latency"
    DISTURBED = "machine-never-quiet"


#: Another attempt cannot change these.
FINAL = frozenset({Reason.FAILED, Reason.NON_FINITE, Reason.MEMORY})


@dataclass(frozen=True)
class Rejected:
    """A sample that was rejected whole: its reasons and its raw samples, in ms a process."""

    reasons: tuple[str, ...]
    samples_ms: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Measurement:
    """The latency of one model file on one device.

    ``latency_ms`` is the median of one inference (of a whole batch); ``low_ms`` and
    ``high_ms`` bound the 95 % interval. A sample is one value of ``samples_ms``: the mean
    of ``calls`` inferences timed together, so ``p90_ms`` and ``p99_ms`` are those of such
    means. When nothing could be measured the figures are NaN and ``detail`` says why.

    ``pinned`` is true when both the cores and their frequency were fixed. An invalid
    measurement keeps the figures of its best attempt (fewest reasons, then the narrowest
    interval) and its ``reasons``; the other attempts are in ``rejected``.

    Where a probe ran between the samples, the figures are of the undisturbed ones
    (:mod:`devices.measuring.quiet`); ``samples_ms`` holds all samples of the processes that
    count, ``rejected`` those of the others. ``floor_ms`` is the 10 % quantile, which
    interference cannot raise, and ``processor_ms`` the processor time of one inference; both
    are None where they are not known, as in measurements of earlier versions.

    ``energy_mj`` is the energy of one inference, None where the machine does not expose it.
    ``conditions`` hold ``arithmetic`` (how many products run in which) and ``doubts``
    (what makes the model's outputs doubtful), where the runtime can tell.
    """

    latency_ms: float
    low_ms: float
    high_ms: float
    iqr_ms: float
    p90_ms: float
    p99_ms: float
    mad_ms: float
    samples_ms: tuple[tuple[float, ...], ...]
    calls: tuple[int, ...]
    valid: bool
    reasons: tuple[str, ...]
    attempts: int
    rejected: tuple[Rejected, ...]
    runtime: str
    runtime_version: str
    parameters: Mapping[str, Any]
    protocol: Mapping[str, Any]
    conditions: Mapping[str, Any]
    pinned: bool
    detail: str = ""
    device: str = ""
    key: str = ""
    energy_mj: float | None = None
    floor_ms: float | None = None
    processor_ms: float | None = None

    @property
    def busy(self) -> bool | None:
        """Whether the machine was, so that the fastest samples stand for the latency.

        None where nothing looked.
        """
        which = self.conditions.get("samples")
        return None if not which else any(one.startswith("lowest") for one in which)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary; NaN becomes None."""
        return {name: plain_json(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Measurement:
        """Read what :meth:`to_json` wrote; keys of later versions are left out."""
        known = {f.name for f in fields(cls)}
        data = {name: item for name, item in value.items() if name in known}
        for name in FIGURES:
            data[name] = math.nan if data[name] is None else float(data[name])
        data["samples_ms"] = _tuples(data["samples_ms"])
        data["calls"] = tuple(data["calls"])
        data["reasons"] = tuple(data["reasons"])
        data["rejected"] = tuple(
            Rejected(tuple(item["reasons"]), _tuples(item["samples_ms"]))
            for item in data["rejected"]
        )
        return cls(**data)


FIGURES = ("latency_ms", "low_ms", "high_ms", "iqr_ms", "p90_ms", "p99_ms", "mad_ms")


LONGEST_MS = 8.64e7
"""A day: no inference takes longer."""


def plausible(measurement: Measurement) -> Measurement:
    """Return ``measurement``, or an invalid one without figures where these cannot be.

    A broken counter, clock or board reports 0 ms, -1 ms or 1e308 ms; none of them may win a
    front, whichever way it came here.
    """
    figures = (measurement.latency_ms, measurement.low_ms, measurement.high_ms)
    impossible = [f"{x:g} ms" for x in figures if not (math.isnan(x) or 0 < x <= LONGEST_MS)]
    energy = measurement.energy_mj
    if energy is not None and not 0 <= energy < math.inf:
        measurement = replace(measurement, energy_mj=None)
    if not impossible:
        return measurement
    nothing: dict[str, Any] = dict.fromkeys(FIGURES, math.nan)
    return replace(
        measurement,
        **nothing,
        valid=False,
        reasons=tuple(dict.fromkeys([*measurement.reasons, Reason.IMPOSSIBLE.value])),
        detail=f"the device reports {impossible[0]}, which no inference takes; is its clock or "
        "counter broken?",
    )


def plain_json(value: Any) -> Any:
    """Return a value as JSON holds it: lists for tuples, None for what is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    return value


def _tuples(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in rows)
