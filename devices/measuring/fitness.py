"""Whether a board is fit to measure on: the same model again and again, and what it shows."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devices.device import Device
from devices.measuring.measurement import Measurement
from devices.measuring.protocol import Protocol
from search_spaces.errors import InputError

MAX_SPREAD = 0.05
"""Share of the median within which the medians of separate runs must lie."""
MAX_TREND = 0.03
"""Change from the first to the last run, by a straight line, as a share of the median."""
MAX_REJECTED = 0.3
"""Share of attempts that may be rejected."""


@dataclass(frozen=True)
class Check:
    """One thing looked at: ``ok`` is true, false, or None where the board does not tell."""

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True)
class Fitness:
    """What separate runs of the reference model showed.

    Attributes:
        medians_ms: of each run.
        spread: (largest - smallest) / median of them.
        trend: change over all runs by a fitted line, as a share of the median.
        checks: in the order they are shown; any that failed makes the board unfit.
    """

    medians_ms: tuple[float, ...]
    spread: float
    trend: float
    checks: tuple[Check, ...]

    @property
    def fit(self) -> bool:
        """Whether nothing that was looked at failed."""
        return all(check.ok is not False for check in self.checks)


def reference_model() -> Path:
    """Return the reference model that the package ships: a small convolutional network."""
    return Path(str(importlib.resources.files("devices.measuring").joinpath("reference.onnx")))


def assess(
    device: Device,
    *,
    model: Path | None = None,
    runs: int = 5,
    protocol: Protocol | None = None,
    on_run: Callable[[int, Measurement], None] = lambda index, measurement: None,
) -> Fitness:
    """Measure the reference model in separate runs and judge what they show.

    Args:
        model: by default :func:`reference_model`.
        runs: at least 3.
        protocol: of each run; its seed is changed, so that each is measured anew.
        on_run: called after each run.

    Raises:
        InputError: fewer than 3 runs, or the model cannot be measured at all.
        EnvironmentProblem: measuring is impossible.
    """
    if runs < 3:
        raise InputError(f"fitness needs at least 3 runs, not {runs}")
    base = protocol or Protocol(processes=3, runs=50, retries=1)
    measured = []
    for index in range(runs):
        seeded = Protocol.from_json({**base.to_json(), "seed": base.seed + index})
        (measurement,) = device.measure([model or reference_model()], protocol=seeded)
        if not np.isfinite(measurement.latency_ms):
            raise InputError(f"{device.spec.name} cannot run the model: {measurement.detail}")
        measured.append(measurement)
        on_run(index, measurement)
    return judge(measured)


def judge(measured: Sequence[Measurement]) -> Fitness:
    """Judge separate measurements of one model, in the order they were taken."""
    medians = np.array([measurement.latency_ms for measurement in measured])
    middle = float(np.median(medians))
    spread = float(np.ptp(medians)) / middle
    slope = float(np.polyfit(np.arange(len(medians)), medians, 1)[0])
    trend = slope * (len(medians) - 1) / middle
    attempts = sum(measurement.attempts for measurement in measured)
    rejected = sum(len(measurement.rejected) + (not measurement.valid) for measurement in measured)
    share = rejected / max(1, attempts)
    reasons = sorted(
        {r for m in measured for r in m.reasons}
        | {r for m in measured for attempt in m.rejected for r in attempt.reasons}
    )
    checks = (
        Check("repeatability", spread <= MAX_SPREAD,
              f"medians of {len(medians)} runs within {spread:.1%} (limit {MAX_SPREAD:.0%})"),
        Check("drift", abs(trend) <= MAX_TREND,
              f"{trend:+.1%} from the first run to the last (limit {MAX_TREND:.0%})"),
        Check("rejections", share <= MAX_REJECTED,
              f"{rejected} of {attempts} attempts rejected"
              + (f": {', '.join(reasons)}" if reasons else "")),
        *_conditions(measured),
    )  # fmt: skip
    return Fitness(tuple(medians.tolist()), spread, trend, checks)


def _conditions(measured: Sequence[Measurement]) -> list[Check]:
    before = [state for m in measured for state in m.conditions.get("before", ())]
    after = [state for m in measured for state in m.conditions.get("after", ())]
    governors = sorted({str(s["governor"]) for s in before if s.get("governor")})
    pinned = all(measurement.pinned for measurement in measured)
    if not governors:
        governor = Check("governor", None, "the machine does not say; frequencies are not pinned")
    else:
        detail = ", ".join(governors) + ("" if pinned else "; set it to performance to pin it")
        governor = Check("governor", pinned or None, detail)
    return [governor, _throttling(before, after), _temperature(after), _load(before)]


def _throttling(before: Sequence[Any], after: Sequence[Any]) -> Check:
    events = [
        late["throttle_count"] - early["throttle_count"]
        for early, late in zip(before, after, strict=False)
        if early.get("throttle_count") is not None and late.get("throttle_count") is not None
    ]
    cooling = [s["cooling_state"] for s in after if s.get("cooling_state") is not None]
    if not events and not cooling:
        return Check("throttling", None, "the machine does not say")
    seen = any(events) or any(cooling)
    return Check("throttling", not seen, "throttled while measuring" if seen else "none")


def _temperature(after: Sequence[Any]) -> Check:
    seen = [state["temperature_c"] for state in after if state.get("temperature_c") is not None]
    if not seen:
        return Check("temperature", None, "the machine does not say")
    return Check("temperature", True, f"up to {max(seen):.0f} degrees Celsius")


def _load(before: Sequence[Any]) -> Check:
    seen = [state["load_1m"] for state in before if state.get("load_1m") is not None]
    if not seen:
        return Check("load", None, "the machine does not say")
    highest = max(seen)
    detail = f"up to {highest:.2f} processes waiting or running (1 minute average)"
    # The measurement itself is one of them.
    return Check("load", highest <= 2.0 or None, detail)
