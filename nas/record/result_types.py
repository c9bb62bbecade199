"""What ``results.json`` holds, typed: one dataclass for each thing a run tells.

Written by :func:`nas.record.results.assemble`, read by :func:`nas.report.results.load_results`. A
record is a mapping of its JSON keys as well, so that what prints a run key by key reads it too.
Files of older versions are read: a key that they lack has its default, and keys that this version
does not know are kept in ``extra`` and written back.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, TypeVar, Union

from search_spaces.errors import InputError

SCHEMA = 1
"""Version of the file; files before it carry none and are read as 0."""

_Own = TypeVar("_Own", bound="Record")


def number(value: Any) -> float | None:
    """Return a finite number as it is, anything else as ``None`` (not recorded)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Record(Mapping[str, Any]):
    """The base of every part of the results.

    Attributes:
        extra: what another version of the project wrote beside the known keys.
    """

    extra: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def from_json(cls: type[_Own], value: Any, place: str = "results") -> _Own:
        """Read the record from what a JSON file holds.

        Args:
            value: the decoded object.
            place: where it stands, for messages, such as ``front[2]``.

        Raises:
            InputError: the value, or a part of it that holds records, is of another type.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise InputError(f"{place} must hold an object, not {type(value).__name__}")
        kinds = _kinds(cls)
        join = f"{place}: {{!r}}" if cls is Results else f"{place}.{{}}"
        known = {
            key: _read(kind, value[key], join.format(key))
            for key, kind in kinds.items()
            if key in value
        }
        present = {key: one for key, one in known.items() if one is not None}
        extra = {key: one for key, one in value.items() if key not in kinds}
        return cls(**present, extra=extra)

    def to_json(self) -> dict[str, Any]:
        """Return what the JSON file holds, without anything that JSON has no word for."""
        own = {key: _written(getattr(self, key)) for key in _kinds(type(self))}
        return {**own, **{key: _written(one) for key, one in self.extra.items()}}

    def __getitem__(self, key: str) -> Any:
        if key in _kinds(type(self)):
            return getattr(self, key)
        return self.extra[key]

    def __iter__(self) -> Iterator[str]:
        return iter((*_kinds(type(self)), *self.extra))

    def __len__(self) -> int:
        return len(_kinds(type(self))) + len(self.extra)


@dataclass(frozen=True)
class Latency(Record):
    """A latency on one device, measured or estimated, beside what was predicted of it.

    Attributes:
        latency_ms, low_ms, high_ms: median and 95 % interval, milliseconds.
        source: ``measured``, or how else it came about.
        energy_mj: of one inference, millijoules.
        valid: whether every limit of the protocol was kept; ``reasons`` says which were not.
        busy: whether the machine was, so that the fastest samples stand for the latency
            (:mod:`devices.measuring.quiet`); None where it is not known.
        predicted_ms, predicted_low_ms, predicted_high_ms: before it was measured.
        feasible: whether the bounds of this device, and of none, hold.
    """

    latency_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    source: str = "measured"
    energy_mj: float | None = None
    valid: bool | None = None
    reasons: tuple[str, ...] = ()
    busy: bool | None = None
    predicted_ms: float | None = None
    predicted_low_ms: float | None = None
    predicted_high_ms: float | None = None
    feasible: bool | None = None


@dataclass(frozen=True)
class Sample(Record):
    """A measurement that the latency predictor learned from, or was held against.

    Attributes:
        device, id: of the device and the architecture.
        role: ``fit`` or ``verify``; None in files that do not say.
        The rest as in :class:`Latency`.
    """

    device: str = ""
    id: str = ""
    role: str | None = None
    latency_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    source: str = "measured"
    energy_mj: float | None = None
    valid: bool | None = None
    reasons: tuple[str, ...] = ()
    busy: bool | None = None
    predicted_ms: float | None = None
    predicted_low_ms: float | None = None
    predicted_high_ms: float | None = None


@dataclass(frozen=True)
class Model(Record):
    """A verified architecture, on the front or rejected.

    Attributes:
        id, arch: of the architecture.
        validation_accuracy, test_accuracy: the task's metric, whatever its name, of the file.
        validation, test: every metric of the task by name.
        metrics: all that was evaluated or measured, by ``str(metric)``; ``costs``: of these, what
            follows from the architecture alone.
        size_kib: of the file.
        knee: whether it is the knee of the first front; ``knees``: names of the fronts it is of.
        feasible: whether all bounds hold.
        devices: by the device's name.
        parity: how far the file agrees with its network.
        plan: layers, as :class:`search_spaces.plan.NetworkPlan` has them.
        per_class: the metric of each class.
        model: path inside the run folder; ``fronts``: those it is on.
        pareto: False where the final figures say that it is beaten on every front it is on;
            ``beaten_by``: name of a front -> id of a row that beats it there.
        why: of a rejected one.
    """

    id: str = ""
    arch: str | None = None
    validation_accuracy: float | None = None
    validation: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    costs: Mapping[str, Any] = field(default_factory=dict)
    size_kib: float | None = None
    knee: bool = False
    feasible: bool | None = None
    devices: Mapping[str, Latency] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None
    plan: Mapping[str, Any] | None = None
    test_accuracy: float | None = None
    test: Mapping[str, Any] = field(default_factory=dict)
    per_class: Mapping[str, Any] | None = None
    model: str | None = None
    fronts: tuple[str, ...] = ()
    knees: tuple[str, ...] = ()
    pareto: bool = True
    beaten_by: Mapping[str, str] = field(default_factory=dict)
    why: str | None = None


@dataclass(frozen=True)
class Evaluated(Record):
    """One evaluation of the search.

    Attributes:
        number: from 0, in order; ``round``: of the strategy.
        id: of the architecture; ``choices``: its active ones.
        metrics: by ``str(metric)``, null where undefined; ``predicted``: those only predicted.
        early_stopped: whether it was given up on.
        feasible: whether all bounds hold.
        latency_source: where its latencies come from; in older files by device.
    """

    number: int | None = None
    round: int = 0
    id: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    early_stopped: bool = False
    feasible: bool | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)
    latency_source: Any = None


@dataclass(frozen=True)
class BoundRecord(Record):
    """A constraint: ``metric`` at most ``bound`` (``upper``), or at least."""

    metric: str = ""
    bound: float | None = None
    upper: bool = True
    confidence: float | None = None


@dataclass(frozen=True)
class BudgetRecord(Record):
    """One of ``search.budgets``, and the best ``model`` of the front within it, if there is one."""

    metric: str = ""
    limit: float | None = None
    model: str | None = None


@dataclass(frozen=True)
class FrontRecord(Record):
    """A front that was asked for: its objectives, and the names of its constraints."""

    name: str = ""
    goals: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceRecord(Record):
    """A device of the job, and the version of the runtime that measured."""

    name: str | None = None
    runtime: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    runtime_version: str | None = None


@dataclass(frozen=True)
class Results(Record):
    """Everything a run found.

    Attributes:
        schema: version of the file, :data:`SCHEMA` when this version writes it.
        name, seed, command: of the run.
        metric, higher_is_better: of the task; ``task``: what else reports say of it.
        space: name, preset and cardinality.
        devices, goals, constraints, fronts: what was asked for.
        budgets: of ``search.budgets``, each with the model that serves it.
        front: the verified models on any front, best first; ``rejected``: the others.
        evaluations: of the search, in order.
        hypervolume: over evaluations, with its reference point and objectives.
        latency_samples: what predictors learned from and were held against.
        accuracy_predictor, training, timing: records of the stages.
        provenance: versions, hardware, data, when.
    """

    schema: int = 0
    name: str | None = None
    seed: int | None = None
    command: str | None = None
    metric: str = "accuracy"
    higher_is_better: bool = True
    task: Mapping[str, Any] | None = None
    space: Mapping[str, Any] | None = None
    devices: tuple[DeviceRecord, ...] = ()
    fronts: tuple[FrontRecord, ...] = ()
    goals: tuple[str, ...] = ()
    constraints: tuple[BoundRecord, ...] = ()
    budgets: tuple[BudgetRecord, ...] = ()
    front: tuple[Model, ...] = ()
    rejected: tuple[Model, ...] = ()
    evaluations: tuple[Evaluated, ...] = ()
    hypervolume: Mapping[str, Any] | None = None
    latency_samples: tuple[Sample, ...] = ()
    accuracy_predictor: tuple[Mapping[str, Any], ...] = ()
    training: tuple[Mapping[str, Any], ...] = ()
    timing: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, Any] | None = None


@lru_cache
def _kinds(cls: type[Record]) -> dict[str, Any]:
    """Return the type of each key of a record."""
    hints = typing.get_type_hints(cls)
    return {one.name: hints[one.name] for one in fields(cls) if one.name != "extra"}


def _read(kind: Any, value: Any, place: str) -> Any:
    """Return a value of a JSON file as the field has it; None where it says nothing."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if value is None or kind is Any:
        return value
    if _is_union(kind):
        return _read(next(one for one in inner if one is not type(None)), value, place)
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind.from_json(value, place)
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InputError(f"{place} must be a list, not {type(value).__name__}")
        found = (_read(inner[0], one, f"{place}[{i}]") for i, one in enumerate(value))
        return tuple(one for one in found if one is not None)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{place} must hold an object, not {type(value).__name__}")
        return {str(key): _read(inner[1], one, f"{place}.{key}") for key, one in value.items()}
    if kind is bool:
        return value if isinstance(value, bool) else None
    if kind is int:
        return int(value) if number(value) is not None else None
    return number(value) if kind is float else str(value)


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) is Union or type(kind).__name__ == "UnionType"


def _written(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _written(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [_written(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # a metric of which there is none; JSON has no word for it
    return value
