"""The latencies of a run: what was measured on each device, and what that predicts.

Each device's models are measured by the device itself; a few architectures before the search,
candidates of the fronts at its end. After each batch of measurements the device's predictor
is adapted again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.space import Arch
from search_spaces.tables.table import LatencyTable

if TYPE_CHECKING:
    from pathlib import Path

    from devices.device import Device
    from devices.measuring.measurement import Measurement
    from devices.measuring.protocol import Protocol
    from devices.measuring.store import Store
    from nas.stages.progress import Progress
    from predictors.registry import Adapted, LatencyPredictor
    from search_spaces.planned import PlannedSpace

QUANTITIES = ("latency_ms", "energy_mj")
"""What a measurement can hold, by the name of the metric."""

_LOADED_S = 0.15
"""Seconds that a model takes of a measuring process before its first sample."""

Files = Callable[[Arch, str], "Path"]
"""(architecture, variant) -> model file, exported if it is not there yet."""


class Latencies:
    """Measurements and adapted predictors by device.

    Args:
        space: of the architectures.
        devices: that measure; their names are the keys everywhere.
        store: where measurements are looked up and kept.
        protocol: how to measure.
        files: gives an architecture's model file.
        predictor: makes a latency predictor that knows the meta-training devices.
        failed: told of every (architecture, reason) that a device cannot run.
        progress: where to tell about progress.
        retries: models of a front -> further attempts at most at what other load disturbs; by
            default those of the protocol.
    """

    def __init__(
        self,
        space: PlannedSpace,
        devices: Sequence[Device],
        *,
        store: Store,
        protocol: Protocol,
        files: Files,
        predictor: Callable[[], LatencyPredictor],
        failed: Callable[[Arch, str], None],
        progress: Progress,
        retries: Callable[[int], int] | None = None,
    ) -> None:
        self.space = space
        self._retries = retries
        self.devices = {device.spec.name: device for device in devices}
        self._store, self._protocol, self._files = store, protocol, files
        self._predictor, self._failed, self._progress = predictor, failed, progress
        self._meta_fitted: LatencyPredictor | None = None
        self.samples: dict[str, dict[Arch, Measurement]] = {name: {} for name in self.devices}
        self.adapted: dict[str, Adapted] = {}

    def choose(self, pool: Sequence[Arch], count: int) -> list[Arch]:
        """Return ``count`` architectures, of ``pool``, that tell a predictor most.

        A predictor may require some of its own, such as the references of HELP; they are
        measured wherever they lie, since what they describe is the device.

        Both ends of the space come first where they are in the pool: a front reaches from
        one to the other, and a predictor should not have to extrapolate.
        """
        required = self.space.decode(self._base().required_genes())
        pool = list(dict.fromkeys([*required, *pool]))
        open_ones = set(pool).difference(required)
        ends = [a for a in (self.space.smallest(), self.space.largest()) if a in open_ones]
        # Beside what it requires, a predictor chooses one itself.
        ends = list(dict.fromkeys(ends))[: count - len(required) - bool(required)]
        inner = [arch for arch in pool if arch not in ends]
        more = min(count - len(ends), len(inner))
        return [*ends, *(self._base().suggest(inner, more) if more > 0 else [])]

    def measure(
        self, archs: Sequence[Arch], *, variant: str, learning: bool = False
    ) -> dict[str, dict[Arch, Measurement]]:
        """Measure ``archs`` on every device.

        Boards behind a hub work at the same time. Devices of this machine take turns, since two
        measurements on one machine disturb each other.

        Args:
            archs: the architectures.
            variant: of their files.
            learning: whether only a predictor learns from them, see
                :meth:`devices.measuring.protocol.Protocol.for_learning`.

        Returns:
            by device, the measurements of the architectures it can run.

        Raises:
            EnvironmentProblem: a device can run none of them, or none has a usable file.
        """
        forms = {name: _of_form(variant, d.spec.form) for name, d in self.devices.items()}
        archs, paths = self._usable_files(archs, list(dict.fromkeys(forms.values())))
        names = list(self.devices)
        total = len(names) * len(archs)
        protocol = self._protocol.for_learning() if learning else self._protocol
        if self._retries is not None and not learning:
            protocol = replace(protocol, retries=self._retries(len(archs)))
        where = ", ".join(names)
        with self._progress.stage(f"latency on {where}", total, unit="measurements") as bar:

            def measure_on(name: str) -> list[Measurement]:
                return self.devices[name].measure(
                    paths[forms[name]],
                    archs=[str(arch) for arch in archs],
                    space=self.space.name,
                    variant=forms[name],
                    protocol=protocol,
                    store=self._store,
                    on_result=lambda _, m: bar.advance(1, f"{m.latency_ms:.3f} ms"),
                )

            remote = [name for name in names if self.devices[name].concurrent]
            waiting = {name: _Background(measure_on, name) for name in remote}
            found = {n: measure_on(n) for n in names if n not in waiting}
            found |= {name: thread.result() for name, thread in waiting.items()}
        return {name: self._usable(name, archs, found[name]) for name in names}

    def front_factor(self) -> float:
        """Return how much longer a model of the front is measured than those learnt from."""
        found = [m.latency_ms for measured in self.samples.values() for m in measured.values()]

        def seconds(used: Protocol) -> float:
            each = np.maximum(used.min_sample_ms, found)
            return used.processes * float(np.mean(_LOADED_S + used.runs * each / 1e3))

        return seconds(self._protocol) / seconds(self._protocol.for_learning())

    def _usable_files(
        self, archs: Sequence[Arch], variants: Sequence[str]
    ) -> tuple[list[Arch], dict[str, list[Path]]]:
        """Return the architectures whose files compute what their networks do, and the files."""
        from nas.models.parity import UnusableModel

        found: dict[Arch, dict[str, Path]] = {}
        last = None
        for arch in archs:
            try:
                found[arch] = {variant: self._files(arch, variant) for variant in variants}
            except UnusableModel as error:
                # One model less to learn latencies from; the others tell as much.
                self._failed(arch, str(error))
                last = error
        if last is not None and not found:
            raise last
        return list(found), {v: [files[v] for files in found.values()] for v in variants}

    def _usable(
        self, name: str, archs: Sequence[Arch], found: Sequence[Measurement]
    ) -> dict[Arch, Measurement]:
        """Keep what a device could run, and report the rest."""
        usable = {}
        for arch, measurement in zip(archs, found, strict=True):
            if np.isfinite(measurement.latency_ms):
                usable[arch] = measurement
            else:
                self._failed(arch, f"{name} cannot run it: {measurement.detail}")
        if not usable:
            raise EnvironmentProblem(
                f"{name} ({self.devices[name].spec.runtime}) cannot run any of {len(archs)} "
                f"models; the last says: {found[-1].detail}"
            )
        self.samples[name].update(usable)
        return usable

    def adapt(self) -> None:
        """Fit every device's predictors to all that was measured on it so far."""
        for device, measured in self.samples.items():
            for name in QUANTITIES:
                values = {arch: quantity(m, name) for arch, m in measured.items()}
                known = {arch: value for arch, value in values.items() if np.isfinite(value)}
                if known:
                    self.adapted[f"{name}[{device}]"] = self._base().adapt(
                        list(known), list(known.values())
                    )

    def latency_predictors(self) -> dict[str, Adapted]:
        """Return the adapted latency predictor of each device, as it is now."""
        found = {name: self.adapted.get(f"latency_ms[{name}]") for name in self.devices}
        return {name: adapted for name, adapted in found.items() if adapted is not None}

    def predict_genes(self, metric: str, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of ``latency_ms[device]`` and the like.

        Args:
            metric: as ``str(metric)`` writes it.
            genes: rows (n, choices).

        Raises:
            InputError: the device's measurements do not hold that quantity.
        """
        if metric not in self.adapted:
            known = ", ".join(sorted(self.adapted)) or "nothing"
            raise InputError(
                f"{metric} is not known: the device does not measure it (measured: {known})"
            )
        return self.adapted[metric].predict_genes(genes)

    def predicted(self, archs: Sequence[Arch]) -> list[dict[str, float]]:
        """Return each architecture's quantities on every device, as predicted."""
        if not archs:
            return []
        genes = self.space.genes(archs)
        means = {name: a.predict_genes(genes)[0] for name, a in self.adapted.items()}
        return [{name: float(mean[i]) for name, mean in means.items()} for i in range(len(archs))]

    def _base(self) -> LatencyPredictor:
        if self._meta_fitted is None:
            self._meta_fitted = self._predictor()
        return self._meta_fitted


def quantity(measurement: Measurement, name: str) -> float:
    """Return a measurement's ``latency_ms`` or ``energy_mj``; NaN where it was not measured."""
    value = getattr(measurement, name, None)
    return float("nan") if value is None else float(value)


def _of_form(variant: str, form: str) -> str:
    """Return the name of one of several files of an architecture's variant."""
    return f"{variant}-{form}" if form else variant


def empty_table(space: PlannedSpace, archs: Sequence[Arch]) -> LatencyTable:
    """Return a table that knows architectures and no device, for a predictor without one."""
    return LatencyTable.from_archs(space, list(archs), {})


class _Background(Thread):
    """One call in a thread that does not keep a process alive which wants to stop."""

    def __init__(self, function: Callable[[str], Any], argument: str) -> None:
        super().__init__(daemon=True)
        self._call = function, argument
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Call the function; an error waits for :meth:`result`."""
        function, argument = self._call
        try:
            self._result = function(argument)
        except BaseException as error:  # raised where the result is asked for
            self._error = error

    def result(self) -> Any:
        """Wait for the call and return its result, or raise its error."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._result
