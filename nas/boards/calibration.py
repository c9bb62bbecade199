"""A board met for the first time: ten architectures measured, twenty more foretold.

The predictor that a search would use learns the board from a few measurements it asks for
itself; then architectures it has not seen are measured, and what it said is held against them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.measuring.protocol import Protocol
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.seeds import derive_rng
from search_spaces.space import Arch
from search_spaces.tables.table import LatencyTable

if TYPE_CHECKING:
    from devices.device import Device
    from devices.measuring.measurement import Measurement
    from devices.measuring.store import Store
    from predictors.registry import Adapted
    from search_spaces.planned import PlannedSpace

COVERAGE = 0.9
"""Share of the architectures whose latency the predicted interval should hold."""

POOL = 200
"""Random architectures that the predictor chooses the measured ones from."""

GROUP = 5
"""Architectures measured together: the clock is looked at, and a kill loses, one group."""

QUICK = Protocol(processes=3, runs=30, retries=1)
"""How the architectures are measured by default. A measurement that is still rejected after its
second attempt is used all the same, and marked: on a machine with neighbours a third would not
be better."""

LEAST = 2
"""Measurements that a predictor can be adapted with."""

Files = Callable[[Arch], Path]
"""Gives an architecture's model file."""


@dataclass(frozen=True)
class Latency:
    """A measured latency with its 95 % interval, in milliseconds.

    ``reasons`` say why the measurement protocol rejected it; none when it is valid.
    """

    arch: str
    measured_ms: float
    measured_low_ms: float
    measured_high_ms: float
    reasons: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether the protocol accepted the measurement."""
        return not self.reasons


@dataclass(frozen=True)
class Foretold(Latency):
    """One architecture that was predicted, then measured; milliseconds.

    ``low_ms`` and ``high_ms`` bound the predicted latency with the chance :data:`COVERAGE`.
    """

    predicted_ms: float
    low_ms: float
    high_ms: float

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the predicted interval."""
        return self.low_ms <= self.measured_ms <= self.high_ms


@dataclass(frozen=True)
class Step:
    """One measurement of a calibration under way.

    Attributes:
        what: "learn" or "check".
        index, count: which of how many.
        left_s: seconds that what is left will take, if all of it is like the slowest so far.
    """

    what: str
    index: int
    count: int
    measurement: Measurement
    left_s: float


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes:
        device: name.
        known: devices that the predictor learned from before.
        learned: those that it asked for.
        foretold: the others.
        skipped: measurements that there was no time for.
        adapted: the predictor of this device.
    """

    device: str
    known: tuple[str, ...]
    learned: tuple[Latency, ...]
    foretold: tuple[Foretold, ...]
    skipped: int
    adapted: Adapted

    @property
    def invalid(self) -> int:
        """How many of all measurements the protocol rejected."""
        return sum(not one.valid for one in (*self.learned, *self.foretold))

    def scores(self, *, valid_only: bool = False) -> dict[str, float | None] | None:
        """Return ``spearman``, ``mape`` and ``coverage`` (fractions) over ``foretold``.

        None when fewer than 3 are left to score; ``spearman`` alone is None where all of
        them are equally fast, measured or predicted.
        """
        from scipy.stats import spearmanr

        from predictors.rank_correlation import rank_correlation

        chosen = [one for one in self.foretold if one.valid or not valid_only]
        if len(chosen) < 3:
            return None
        predicted = np.array([one.predicted_ms for one in chosen])
        measured = np.array([one.measured_ms for one in chosen])
        return {
            "spearman": rank_correlation(spearmanr, predicted, measured),
            "mape": float(np.mean(np.abs(predicted / measured - 1))),
            "coverage": float(np.mean([one.inside for one in chosen])),
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything but the predictor."""
        return {
            "device": self.device,
            "known": list(self.known),
            "learned": [asdict(one) | {"valid": one.valid} for one in self.learned],
            "foretold": [
                asdict(one) | {"valid": one.valid, "inside": one.inside} for one in self.foretold
            ],
            "skipped": self.skipped,
            "scores": self.scores(),
            "scores_of_valid": self.scores(valid_only=True),
        }

    def table(self, space: PlannedSpace) -> LatencyTable:
        """Return all that was measured as a latency table with the device's column."""
        all_of_them = [*self.learned, *self.foretold]
        values = np.array([one.measured_ms for one in all_of_them])
        archs = [space.parse(one.arch) for one in all_of_them]
        return LatencyTable.from_archs(space, archs, {self.device: values})


def calibrate(
    device: Device,
    space: PlannedSpace,
    files: Files,
    *,
    known: LatencyTable | None,
    measurements: int = 10,
    checks: int = 20,
    protocol: Protocol = QUICK,
    store: Store | None = None,
    variant: str = "calibration",
    seed: int = 0,
    predictor: str = "transfer_gp",
    minutes: float | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
    clock: Callable[[], float] = time.monotonic,
) -> Calibration:
    """Measure what the predictor asks for, adapt it, and hold it against other architectures.

    Args:
        known: latencies of other devices to learn from first; None for none.
        measurements: architectures to learn from. ``checks``: architectures to foretell.
        protocol, store, variant: as :meth:`devices.device.Device.measure` takes them. With a
            store, a calibration that was broken off goes on where it was.
        seed: of the choice of architectures.
        predictor: registered name.
        minutes: counted from the call, learning from ``known`` included: no group of
            :data:`GROUP` architectures is begun that would end later, but the first is measured
            whatever it takes. What is left out is counted in ``skipped``.
        on_step: told each measurement.
        clock: monotonic seconds.

    Raises:
        InputError: fewer than 2 measurements or 3 checks, or the space is too small.
        EnvironmentProblem: the device cannot run a model.
    """
    from predictors.benchmark import make_predictor

    if measurements < LEAST or checks < 3:
        raise InputError(
            f"calibration needs at least {LEAST} measurements and 3 checks, not {measurements} "
            f"and {checks}"
        )
    if minutes is not None and not minutes > 0:
        raise InputError(f"minutes must be more than 0, not {minutes:g}")
    pace = _Pace(measurements + checks, minutes, clock)
    rng = derive_rng(seed, "calibration")
    wanted = max(POOL, 2 * (measurements + checks))
    pool = list(dict.fromkeys([space.smallest(), space.largest(), *_random(space, rng, wanted)]))
    if len(pool) < measurements + checks:
        raise InputError(
            f"space {space.name} gave {len(pool)} architectures, fewer than {measurements + checks}"
        )
    table = known if known is not None else LatencyTable.from_archs(space, pool, {})
    learner = make_predictor(predictor, table, seed=seed).meta_fit(table)
    learned = learner.suggest(pool, measurements, rng)
    others = [arch for arch in pool if arch not in set(learned)]
    held = [others[i] for i in rng.permutation(len(others))[:checks]]

    def told(what: str, start: int, count: int, i: int, one: Measurement) -> None:
        on_step(Step(what, start + i, count, one, pace.left_s()))

    def measured(archs: Sequence[Arch], what: str) -> list[Latency]:
        found: list[Latency] = []
        for start in range(0, len(archs), GROUP):
            group = archs[start : start + GROUP]
            if not pace.begin(len(group)):
                break
            results = device.measure(
                [files(arch) for arch in group],
                archs=[str(arch) for arch in group],
                space=space.name,
                variant=variant,
                protocol=protocol,
                store=store,
                on_result=partial(told, what, start, len(archs)),
            )
            pace.end()
            found += [
                _latency(device.spec.name, arch, one)
                for arch, one in zip(group, results, strict=True)
            ]
        return found

    lessons = measured(learned, "learn")
    adapted = learner.adapt(learned[: len(lessons)], [one.measured_ms for one in lessons])
    # Before the others are measured, so that nothing of them can leak in.
    genes = space.genes(held)
    mean, _ = adapted.predict_genes(genes)
    low, high = adapted.interval_genes(genes, COVERAGE)
    found = measured(held, "check")
    return Calibration(
        device=device.spec.name,
        known=tuple(table.devices),
        learned=tuple(lessons),
        foretold=tuple(
            Foretold(
                **asdict(one),
                predicted_ms=float(mean[i]),
                low_ms=float(low[i]),
                high_ms=float(high[i]),
            )
            for i, one in enumerate(found)
        ),
        skipped=measurements + checks - len(lessons) - len(found),
        adapted=adapted,
    )


class _Pace:
    """How long groups take, and whether there is time for another."""

    def __init__(self, total: int, minutes: float | None, clock: Callable[[], float]) -> None:
        self._clock, self._left = clock, total
        self._end = None if minutes is None else clock() + 60 * minutes
        self._slowest = 0.0  # seconds an architecture
        self._begun, self._count = clock(), 0

    def begin(self, count: int) -> bool:
        """Begin a group of ``count`` architectures if it can be expected to end in time."""
        self._begun, self._count = self._clock(), count
        return self._end is None or self._begun + count * self._slowest <= self._end

    def end(self) -> None:
        """End the group that was begun."""
        self._slowest = max(self._slowest, (self._clock() - self._begun) / self._count)
        self._left -= self._count

    def left_s(self) -> float:
        """Return how long what follows the group may take, going by the slowest so far."""
        now = self._clock()
        slowest = max(self._slowest, (now - self._begun) / self._count)
        left = slowest * (self._left - self._count)
        return left if self._end is None else max(0.0, min(left, self._end - now))


def _latency(device: str, arch: Arch, one: Measurement) -> Latency:
    if not np.isfinite(one.latency_ms):
        raise EnvironmentProblem(
            f"{device} cannot run {arch}: {one.detail or ', '.join(one.reasons)}"
        )
    return Latency(str(arch), one.latency_ms, one.low_ms, one.high_ms, tuple(one.reasons))


def _random(space: PlannedSpace, rng: np.random.Generator, count: int) -> list[Arch]:
    return [space.sample(rng) for _ in range(count)]
