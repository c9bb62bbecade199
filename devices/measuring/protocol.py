"""How a latency is taken: the numbers of the measurement protocol."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from search_spaces.errors import InputError


@dataclass(frozen=True)
class Protocol:
    """Everything a job may set about its measurements; a limit of None is not applied.

    Attributes:
        processes: fresh processes a model is measured in, at least 2.
        runs: samples in each process.
        min_sample_ms: inferences are repeated until a sample lasts as long as this.
        warmup_window_ms: length of one warm-up window.
        warmup_windows: how many successive windows must agree.
        warmup_tolerance: within what share of the fastest they must agree.
        warmup_max_s: after this long the model counts as unsettled.
        reference_every: models between two looks at the reference model, where there is one.
        max_interval: width of the 95 % interval as a share of the median.
        max_drift: difference between the halves of a process.
        max_spread: difference between process medians, and between two looks at the
            reference model.
        max_slowdown: how far the clock frequency may fall, within a process or from one to
            another.
        max_temperature_c: hottest thermal zone, degrees Celsius.
        max_starvation: share of the time in which a single-threaded inference had no
            processor; where a probe runs between the samples, any number asks for processes
            that met a quiet machine, and null takes every sample.
        outlier_factor: a run is an outlier when it takes this many medians, or the median
            takes this many of it.
        max_outlier_share: share of outliers in a process.
        max_iqr: interquartile range of a process's runs as a share of their median; two speeds
            in turn show here and in no median.
        retries: further attempts at a rejected model.
        deadline_s: wall time for one model in one process.
        memory_limit_mib: address space of a process; applied to runtimes on the processor.
        pin: keep a process on as many cores as it has threads.
        cores: which cores; None chooses the fastest and idlest.
        nice: scheduling priority asked for a measuring process, -20 (first) to 19; below 0
            needs privilege, and what was granted is recorded. None asks for -15 and is content
            with what it gets; 0 is the priority of others.
        energy_source: sysfs file of an energy counter or a power sensor, see
            :mod:`devices.energy`; None takes RAPL where it can be read.
        seed: of the inputs and of the order of the models.
    """

    processes: int = 5
    runs: int = 100
    min_sample_ms: float = 1.0
    warmup_window_ms: float = 20.0
    warmup_windows: int = 3
    warmup_tolerance: float = 0.05
    warmup_max_s: float = 2.0
    reference_every: int = 4
    max_interval: float | None = 0.05
    max_drift: float | None = 0.03
    max_spread: float | None = 0.05
    max_slowdown: float | None = 0.05
    max_temperature_c: float | None = None
    max_starvation: float | None = 0.05
    outlier_factor: float = 1.25
    max_outlier_share: float | None = 0.1
    max_iqr: float | None = 0.12
    retries: int = 3
    deadline_s: float = 300.0
    memory_limit_mib: int | None = 4096
    pin: bool = True
    cores: tuple[int, ...] | None = None
    nice: int | None = None
    energy_source: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        whole = {"processes": 2, "runs": 2, "warmup_windows": 2, "reference_every": 1, "retries": 0}
        for name, least in whole.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(
                    f"protocol {name} must be a whole number of at least {least}, not {value!r}"
                )
        positive = ("min_sample_ms", "warmup_window_ms", "warmup_tolerance", "warmup_max_s")
        for name in (*positive, "outlier_factor", "deadline_s"):
            _require_positive(name, getattr(self, name))
        for name in (
            "max_interval", "max_drift", "max_spread", "max_slowdown", "max_temperature_c",
            "max_starvation", "max_outlier_share", "max_iqr", "memory_limit_mib",
        ):  # fmt: skip
            if getattr(self, name) is not None:
                _require_positive(name, getattr(self, name))
        if self.nice is not None and not (isinstance(self.nice, int) and -20 <= self.nice <= 19):
            raise InputError(f"protocol nice must be a whole number, -20 to 19, not {self.nice!r}")
        if self.cores is not None:
            object.__setattr__(self, "cores", tuple(self.cores))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Protocol:
        """Read a protocol from a job or from :meth:`to_json`.

        Raises:
            InputError: an unknown key (with the nearest one) or a bad value.
        """
        known = [f.name for f in fields(cls)]
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(f"the measurement protocol has no key {key!r}{hint}")
        return cls(**value)

    def for_learning(self) -> Protocol:
        """Return the same with no more processes, runs and retries than a predictor needs.

        It bears noise, but not a neighbour who is there all the while: attempts this short may
        be two more.
        """
        return replace(
            self,
            processes=min(self.processes, 3),
            runs=min(self.runs, 30),
            retries=min(self.retries, 2),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary."""
        value = asdict(self)
        value["cores"] = None if self.cores is None else list(self.cores)
        return value


def _require_positive(name: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise InputError(f"protocol {name} must be a positive number, not {value!r}")
