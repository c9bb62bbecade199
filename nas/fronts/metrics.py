"""Metrics of an architecture, and bounds on them.

A constraint turns a metric into a violation: ``<= 0`` is feasible, and a positive
value is the miss as a fraction of the bound, so 0.5 ms over a budget of 2 ms and
25 KiB over 100 KiB weigh the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from search_spaces.errors import InfeasibleError, InputError
from search_spaces.registry import Registry
from search_spaces.training.memory import training_memory_kib
from search_spaces.training.update import Update

if TYPE_CHECKING:
    from search_spaces.planned import PlannedSpace


@dataclass(frozen=True)
class MetricKind:
    """What a metric is.

    Attributes:
        unit: for messages; empty for a dimensionless one.
        maximise: whether more is better.
        per_device: whether its value belongs to one device.
        cost: of a metric of another package that follows from the architecture alone: its values
            for the gene rows (n, choices) of a space, (n,). The built-in ones have none: a space
            knows its own costs, and the rest is evaluated or measured.
        share: whether it is a share of 0 to 1, shown in per cent.
    """

    unit: str
    maximise: bool = False
    per_device: bool = False
    cost: Callable[[PlannedSpace, np.ndarray], np.ndarray] | None = None
    share: bool = False


TRAINING_MEMORY = "training_memory_kib"
"""Name of the peak of memory of a step of training on a device."""


def _training_memory(space: PlannedSpace, genes: np.ndarray) -> np.ndarray:
    """Return it for the last layer; a job says what else (``search.training``)."""
    return training_memory_kib(space, genes, Update())


METRICS: Registry[MetricKind] = Registry("metric", group="nas.metrics")
_KINDS = {
    "accuracy": MetricKind("", maximise=True, share=True),
    "worst_class_accuracy": MetricKind("", maximise=True, share=True),
    "accuracy_at_fault_rate": MetricKind("", maximise=True, share=True),
    "worst_class_loss": MetricKind("", share=True),
    "latency_ms": MetricKind("ms", per_device=True),
    "energy_mj": MetricKind("mJ", per_device=True),
    "peak_memory_kib": MetricKind("KiB of activations at once"),
    TRAINING_MEMORY: MetricKind("KiB at once in training", cost=_training_memory),
    "flash_kib": MetricKind("KiB of flash"),
    "weight_bits_mean": MetricKind("weight bits on average"),
    "activation_bits_mean": MetricKind("activation bits on average"),
    "weights_kib": MetricKind("KiB of weights"),
    "size_kib": MetricKind("KiB of model file"),
    "macs": MetricKind("MACs"),
    "bops": MetricKind("bit operations"),
    "parameters": MetricKind("parameters"),
}
for _name, _kind in _KINDS.items():
    METRICS.register(_name)(_kind)

NOT_OF_TASKS = frozenset(_KINDS) - {"accuracy"}
"""What a run works out or measures itself, whatever its task."""


@dataclass(frozen=True)
class Metric:
    """One number an architecture has, e.g. ``Metric("latency_ms", "cpu")``.

    Written as ``latency_ms[cpu]``, or ``macs`` where no device is involved.

    Raises:
        InputError: an unknown name, or a device missing or out of place.
    """

    name: str
    device: str | None = None

    def __post_init__(self) -> None:
        kind = METRICS.get(self.name)
        if kind.per_device and not self.device:
            raise InputError(f"metric {self.name!r} needs a device, for example {self.name}[cpu]")
        if self.device and not kind.per_device:
            raise InputError(
                f"metric {self.name!r} does not depend on a device; drop [{self.device}]"
            )

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Return the metric written as ``str(metric)`` writes it."""
        match = re.fullmatch(r"([^\[\]]+)(?:\[([^\[\]]+)\])?", text.strip())
        if match is None:
            raise InputError(f"metric {text!r} is not of the form name or name[device]")
        return cls(match[1], match[2])

    @property
    def kind(self) -> MetricKind:
        """Unit and direction."""
        return METRICS.get(self.name)

    def __str__(self) -> str:
        return f"{self.name}[{self.device}]" if self.device else self.name


@dataclass(frozen=True)
class Goal:
    """An objective: make ``metric`` as large or as small as its kind says."""

    metric: Metric

    @property
    def sign(self) -> float:
        """-1 where the metric is maximised: ``objective = sign * value`` is minimised."""
        return -1.0 if self.metric.kind.maximise else 1.0

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """``maximize`` or ``minimize``, the words Optuna uses."""
        return "maximize" if self.metric.kind.maximise else "minimize"


@dataclass(frozen=True)
class Constraint:
    """``metric <= max`` or ``metric >= min``.

    Attributes:
        metric: what is bounded.
        bound: in the metric's unit; finite.
        upper: True for a maximum, False for a minimum.
        confidence: probability with which an uncertain (predicted) value must satisfy
            the bound, in (0, 1); None judges the mean alone. A measured value has no
            uncertainty and is judged as it is.

    Raises:
        InputError: a bound that is not finite or a confidence outside (0, 1).
    """

    metric: Metric
    bound: float
    upper: bool = True
    confidence: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.bound):
            raise InputError(f"the bound of {self.metric} is {self.bound}; it must be finite")
        if self.confidence is not None and not 0.0 < self.confidence < 1.0:
            raise InputError(
                f"confidence {self.confidence} of {self.metric} is not between 0 and 1"
            )

    @property
    def name(self) -> str:
        """Unique among sensible constraints: ``latency_ms[cpu] max``."""
        return f"{self.metric} {'max' if self.upper else 'min'}"

    def violation(self, value: np.ndarray | float, std: np.ndarray | float = 0.0) -> np.ndarray:
        """Return the violation of each value: (n,) -> (n,), ``<= 0`` feasible.

        With ``confidence`` c and ``std`` > 0 the value judged is the c-quantile on the bad
        side of a normal distribution.
        """
        value = np.asarray(value, dtype=float)
        if self.confidence is not None:
            margin = NormalDist().inv_cdf(self.confidence) * np.asarray(std, dtype=float)
            value = value + margin if self.upper else value - margin
        miss = value - self.bound if self.upper else self.bound - value
        return miss / self._scale

    def value(self, violation: np.ndarray | float) -> np.ndarray:
        """Return the metric that has the given violation: the inverse of :meth:`violation`."""
        miss = np.asarray(violation, dtype=float) * self._scale
        return self.bound + miss if self.upper else self.bound - miss

    def describe(self, value: float) -> str:
        """Say how far ``value`` misses: ``needs 3.1 ms on cpu (budget 2.0 ms)``."""
        unit = self.metric.kind.unit
        where = f" on {self.metric.device}" if self.metric.device else ""
        if self.upper:
            return (
                f"needs {_number(value)} {unit or self.metric.name}{where} "
                f"(budget {_number(self.bound)}{f' {unit}' if unit else ''})"
            )
        return (
            f"reaches {_number(value)} {unit or self.metric.name}{where} "
            f"(at least {_number(self.bound)}{f' {unit}' if unit else ''} is asked)"
        )

    @property
    def _scale(self) -> float:
        return abs(self.bound) or 1.0


def violations(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the violation of every constraint by name, from real metrics by ``str(metric)``.

    Raises:
        InputError: a bounded metric was not evaluated.
    """
    out = {}
    for constraint in constraints:
        key = str(constraint.metric)
        if key not in metrics:
            raise InputError(
                f"constraint {constraint.name!r} cannot be judged: {key} was not evaluated "
                f"(evaluated: {', '.join(sorted(metrics))})"
            )
        out[constraint.name] = float(constraint.violation(metrics[key]))
    return out


def require_feasible(
    constraints: Sequence[Constraint], evaluated: Mapping[str, Mapping[str, float]]
) -> None:
    """Refuse a set of real evaluations of which not one satisfies every constraint.

    Args:
        constraints: all of the job's.
        evaluated: canonical string of an architecture -> its metrics by ``str(metric)``.

    Raises:
        InfeasibleError: none does; it names the one that misses by least in total.
    """
    misses = {
        arch: sum(max(v, 0.0) for v in violations(constraints, metrics).values())
        for arch, metrics in evaluated.items()
    }
    if not misses:
        raise InfeasibleError("infeasible: no architecture was evaluated")
    closest = min(misses, key=misses.__getitem__)
    if misses[closest] > 0:
        values = [evaluated[closest][str(c.metric)] for c in constraints]
        raise infeasible(constraints, values, closest, among=evaluated)


def infeasible(
    constraints: Sequence[Constraint],
    values: Sequence[float],
    closest: str | None,
    *,
    among: Mapping[str, Mapping[str, float]] | None = None,
) -> InfeasibleError:
    """Return the error that names the closest architecture and what it misses.

    Args:
        constraints: all of the job's.
        values: the closest architecture's metric for each, in the same order.
        closest: its canonical string.
        among: metrics of all that were evaluated, to say how near any of them came to each bound
            alone.
    """
    missed = {
        c.name: (float(v), c.bound)
        for c, v in zip(constraints, values, strict=True)
        if not c.violation(v) <= 0
    }
    told = [
        c.describe(v) for c, v in zip(constraints, values, strict=True) if c.name in missed
    ] or ["satisfies every bound on average, but not with the confidence asked for"]
    alone = [
        nearest
        for c, v in zip(constraints, values, strict=True)
        if c.name in missed and (nearest := _nearest(c, v, among or {}))
    ]
    return InfeasibleError(
        f"infeasible: the closest architecture found {' and '.join(told)}; "
        f"{''.join(f'{one}; ' for one in alone)}loosen the bound or widen the space",
        closest=closest,
        violations=missed,
    )


def _nearest(
    constraint: Constraint, value: float, among: Mapping[str, Mapping[str, float]]
) -> str | None:
    """Say which value another architecture has that comes nearer to a bound; None if none does."""
    found = [metrics[str(constraint.metric)] for metrics in among.values()]
    nearest = min(found, key=constraint.violation, default=value)
    if not constraint.violation(nearest) < constraint.violation(value):
        return None
    unit, device = constraint.metric.kind.unit, constraint.metric.device
    named = constraint.metric.name + (f" on {device}" if device else "")
    return f"the nearest {named} of any is {_number(nearest)}{f' {unit}' if unit else ''}"


def _number(value: float) -> str:
    # 1.96 ms against a budget of 1.95 must not read as the same number.
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.4e}"
