"""Devices a job names, and the local one."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from typing import Protocol as TypingProtocol

from devices.locks import machine_lock
from devices.measuring.child import Sampler
from devices.measuring.conditions import Reader, read_system_file
from devices.measuring.measure import measure
from devices.measuring.measurement import Measurement, plausible
from devices.measuring.protocol import Protocol
from devices.measuring.store import Query, Store
from devices.runtime import Runtime, make_runtime
from search_spaces.errors import InputError

_LOG = logging.getLogger(__name__)

OnResult = Callable[[int, Measurement], None]


@dataclass(frozen=True)
class BoardAddress:
    """Where a board is: the hub it dials, the token to ask with, its name there.

    Attributes:
        ca: PEM file of the authority that signed the hub's certificate; None trusts the
            system's.
        certificate, key: PEM files to show to a hub that wants a client's certificate.
    """

    hub: str
    token_file: Path
    board: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class DeviceSpec:
    """A device as a job writes it: a name, a runtime and the runtime's parameters.

    Attributes:
        name: what the device is called in fronts, tables and stores.
        runtime: name of a registered runtime.
        threads, batch: see :class:`devices.runtime.Runtime`.
        options: further parameters of the runtime, such as ``provider``.
        address: of a board behind a hub; None is this machine.
        form: which of an architecture's files it measures, such as "decode"; "" for that of the
            whole network.
    """

    name: str
    runtime: str = "onnxruntime"
    threads: int = 1
    batch: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    address: BoardAddress | None = None
    form: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.+-]{1,64}", self.name):
            raise InputError(
                f"device name {self.name!r} may hold only letters, digits and . _ + - "
                f"(at most 64): it names columns and files"
            )

    @property
    def parameters(self) -> dict[str, Any]:
        """The runtime's parameters as written, without the runtime's own defaults."""
        return {"threads": self.threads, "batch": self.batch, **self.options}

    def make_runtime(self) -> Runtime:
        """Build the runtime; raises as :func:`devices.runtime.make_runtime` does."""
        return make_runtime(self.runtime, self.parameters)


class Device(ABC):
    """Something that measures model files: this machine, or a board behind a hub.

    Args:
        spec: name, runtime and parameters.
        remeasure_invalid: measure again what is known only as invalid.

    Attributes:
        concurrent: whether it may measure while other devices do.
    """

    concurrent: bool = False

    def __init__(self, spec: DeviceSpec, *, remeasure_invalid: bool = False) -> None:
        self.spec = spec
        self._remeasure_invalid = remeasure_invalid

    def measure(
        self,
        models: Sequence[Path],
        *,
        archs: Sequence[str] | None = None,
        space: str = "",
        variant: str = "",
        protocol: Protocol | None = None,
        store: Store | None = None,
        on_result: OnResult | None = None,
    ) -> list[Measurement]:
        """Measure models, taking from the store what is there and adding what is not.

        Args:
            models: model files.
            archs: canonical string of each model's architecture, for replay and tables.
            space: name of the search space the strings belong to.
            variant: which of several files of one architecture this is ("search",
                "verify", ...); a replay keeps them apart by it.
            protocol: how to measure.
            store: where to look first, and to keep what was measured.
            on_result: called with index and measurement as each is known, from the
                calling thread, stored ones first.

        Returns:
            One measurement a model, in order. Invalid ones are among them.
        """
        protocol = protocol or Protocol()
        if archs is not None and len(archs) != len(models):
            raise InputError(f"{len(models)} models and {len(archs)} architectures were given")
        names = archs if archs is not None else [""] * len(models)
        queries = [
            Query(
                model=Path(model),
                spec_parameters=self.spec.parameters,
                device=self.spec.name,
                runtime=self.spec.runtime,
                arch=arch,
                space=space,
                variant=variant,
                protocol=protocol.to_json(),
                identify=self._identify,
            )
            for model, arch in zip(models, names, strict=True)
        ]
        results: dict[int, Measurement] = {}

        def report(index: int, measurement: Measurement) -> None:
            results[index] = measurement = plausible(measurement)
            if on_result is not None:
                on_result(index, measurement)

        if store is not None:
            for index, query in enumerate(queries):
                found = store.find(query)
                if found is not None and (found.valid or not self._remeasure_invalid):
                    report(index, found)
        # One file listed twice is measured once.
        twins: dict[str, list[int]] = {}
        for index in range(len(queries)):
            if index not in results:
                twins.setdefault(queries[index].key, []).append(index)

        def done(key: str, measurement: Measurement, *, keep: bool = True) -> None:
            named = replace(plausible(measurement), device=self.spec.name, key=key)
            if store is not None and keep:
                for query in {queries[i].arch: queries[i] for i in twins[key]}.values():
                    store.put(query, named)
            for index in twins[key]:
                report(index, named)

        if twins:
            self._measure([queries[same[0]] for same in twins.values()], protocol, done)
        return [results[index] for index in range(len(queries))]

    @abstractmethod
    def check(self) -> None:
        """Look whether measuring is possible, before any work.

        Raises:
            InputError: the spec is wrong.
            EnvironmentProblem: something is missing: a package, an execution provider, a
                board.
        """

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return what the hardware is; see :func:`device_fingerprint`."""

    @abstractmethod
    def _identify(self) -> dict[str, Any]:
        """What the key holds besides model and protocol; not needed for a replay."""

    @abstractmethod
    def _measure(self, queries: Sequence[Query], protocol: Protocol, done: Done) -> None:
        """Measure files that differ, and call ``done`` with the key of each, once.

        With ``keep=False`` a measurement is reported and not stored.
        """


class Done(TypingProtocol):
    """Takes the measurement of one key."""

    def __call__(self, key: str, measurement: Measurement, *, keep: bool = True) -> None: ...


class LocalDevice(Device):
    """This machine.

    Models are measured in groups; after each group its measurements are stored, so that
    a kill loses the group under way and nothing else. One measurement at a time runs on
    a machine: others wait for the lock.

    Args:
        spec: name, runtime and parameters.
        sampler: how one process is run; by default as a child with limits.
        group: models measured together.
        remeasure_invalid: measure again what the store has only as invalid.
        lock: context manager factory held while measuring.
    """

    def __init__(
        self,
        spec: DeviceSpec,
        *,
        sampler: Sampler | None = None,
        group: int = 8,
        remeasure_invalid: bool = False,
        lock: Callable[[], contextlib.AbstractContextManager[None]] | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(spec, remeasure_invalid=remeasure_invalid)
        if group < 1:
            raise InputError(f"group must be at least 1, not {group}")
        self._sampler = sampler
        self._group = group
        self._lock = lock or machine_lock
        self._fingerprint = fingerprint
        self._told: set[str] = set()

    def check(self) -> None:
        """See :meth:`Device.check`: builds the runtime."""
        self.spec.make_runtime()

    def _measure(self, queries: Sequence[Query], protocol: Protocol, done: Done) -> None:
        runtime = self.spec.make_runtime()
        for start in range(0, len(queries), self._group):
            group = queries[start : start + self._group]
            with self._lock():
                measured = measure(
                    [query.model for query in group], runtime, protocol, sampler=self._sampler
                )
            for query, measurement in zip(group, measured, strict=True):
                self._tell_doubts(query.model, runtime.name, measurement)
                done(query.key, measurement)

    def _tell_doubts(self, model: Path, runtime: str, measurement: Measurement) -> None:
        """Log each kind of doubt for the first model that has it; all keep theirs."""
        for doubt in measurement.conditions.get("doubts") or ():
            kind = re.sub(r"\d+", "N", doubt)  # models differ in their counts
            if kind not in self._told:
                self._told.add(kind)
                _LOG.warning("%s, and perhaps others, on %s: %s", model.name, runtime, doubt)

    def _identify(self) -> dict[str, Any]:
        """What the key holds besides model and protocol; not needed for a replay."""
        runtime = self.spec.make_runtime()
        return {"runtime": runtime.describe(), "fingerprint": self.fingerprint()}

    def fingerprint(self) -> dict[str, Any]:
        """Return what the hardware is; see :func:`device_fingerprint`."""
        if self._fingerprint is None:
            self._fingerprint = device_fingerprint()
        return dict(self._fingerprint)


def device_fingerprint(*, reader: Reader = read_system_file) -> dict[str, Any]:
    """Return what decides this machine's latencies and stays the same over a reboot.

    Returns:
        ``cpu`` (model name), ``cores``, ``architecture``, ``system``, ``has_vnni`` (or Arm's
        dot product: int8 arithmetic that cannot saturate), ``flags_sha256`` (all features).
    """
    info = reader("/proc/cpuinfo") or ""
    flags = _field(info, "flags") or _field(info, "Features") or _field(info, "isa") or ""
    words = set(flags.split())
    board = (reader("/proc/device-tree/model") or "").rstrip("\0")
    model = _field(info, "model name") or _field(info, "Model") or board or platform.processor()
    return {
        "cpu": model or "unknown",
        "cores": os.cpu_count() or 1,
        "architecture": platform.machine(),
        "system": platform.system(),
        "has_vnni": bool(words & {"avx512_vnni", "avx_vnni", "asimddp", "i8mm"}),
        "flags_sha256": hashlib.sha256(" ".join(sorted(words)).encode()).hexdigest()[:16],
    }


def computes_bfloat16(*, reader: Reader = read_system_file) -> bool:
    """Return whether this processor multiplies bfloat16; others emulate it, many times slower."""
    info = reader("/proc/cpuinfo") or ""
    flags = _field(info, "flags") or _field(info, "Features") or ""
    return bool(set(flags.split()) & {"avx512_bf16", "amx_bf16", "bf16"})


def _field(info: str, name: str) -> str:
    match = re.search(rf"^{re.escape(name)}\s*:\s*(.*)$", info, flags=re.MULTILINE)
    return match.group(1).strip() if match else ""
