"""Section ``search.constraints`` and the names of quantities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import (
    ConfigDict,
    Field,
    StrictStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from nas.fronts.metrics import METRICS, Metric
from nas.job.findings import Finding, dotted, nearest, unknown_key
from nas.job.registries import registry_for
from nas.job.values import Real, Section


class Bound(Section):
    """Limits of one quantity, inclusive."""

    min: Real | None = None
    max: Real | None = None


UNKNOWN_KEYS = "unknown_keys"
"""Type of the error for keys of a section that no schema and no registry knows."""


def _only_known_keys(schema: dict[str, Any]) -> None:
    # An editor that knows only the built-in metrics points out typing errors.
    schema["additionalProperties"] = False


class ConstraintsConfig(Section):
    """What a feasible architecture must satisfy. The metric of a task is bounded by its name."""

    latency_ms: dict[StrictStr, Bound] = {}
    """Median latency by device name, in milliseconds."""
    accuracy: Bound | None = None
    """Share of right answers on the search-validation images, 0 to 1; of another task, its metric
    by its name, such as rmse."""
    worst_class_accuracy: Bound | None = None
    """The same for the class with the lowest accuracy."""
    accuracy_at_fault_rate: Bound | None = None
    """The same with the faults of search.faults in the codes of the weights."""
    worst_class_loss: Bound | None = None
    """Accuracy that the class which loses most loses against the same network in float, 0 to 1."""
    energy_mj: dict[StrictStr, Bound] = {}
    """Energy of one inference by device name, in millijoules, where the device measures it."""
    weight_bits_mean: Bound | None = None
    """Mean bits a weight."""
    activation_bits_mean: Bound | None = None
    """Mean bits an activation."""
    weights_kib: Bound | None = None
    """Packed weights, scales and biases, in KiB."""
    size_kib: Bound | None = None
    """The model file, in KiB."""
    peak_memory_kib: Bound | None = None
    """Largest sum of activations alive at once, at their bit-widths, in KiB."""
    training_memory_kib: Bound | None = None
    """Peak of memory of a step of training on the device, of what search.training says, in KiB."""
    flash_kib: Bound | None = None
    """Weights and layer descriptions as a microcontroller stores them, in KiB."""
    macs: Bound | None = None
    """Multiply-accumulate operations for one image."""
    bops: Bound | None = None
    """Bit operations for one image: MACs times weight bits times activation bits."""
    parameters: Bound | None = None
    """Number of weights and biases."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_only_known_keys)
    # By the name of a metric that another package registers.
    __pydantic_extra__: dict[str, Bound] = Field(init=False)

    @model_validator(mode="after")
    def _only_registered(self) -> ConstraintsConfig:
        if self.model_extra:
            registry_for("task").names()  # knows the metrics of tasks once it is read
        unknown = [name for name in self.model_extra or {} if name not in METRICS]
        if unknown:
            raise PydanticCustomError(UNKNOWN_KEYS, "unknown keys {names}", {"names": unknown})
        return self

    def limits(self) -> Iterator[tuple[Metric, Bound]]:
        """Yield each quantity that has limits, in the order of the schema."""
        for name in (*type(self).model_fields, *(self.model_extra or {})):
            limit = getattr(self, name)
            if isinstance(limit, Bound):
                yield Metric(name), limit
            elif limit is not None:
                yield from ((Metric(name, device), bound) for device, bound in limit.items())


def metric_names() -> list[str]:
    """Return the names of metrics, the built-in ones in the order of the schema."""
    registry_for("task").names()  # knows the metrics of tasks once it is read
    return list(dict.fromkeys([*ConstraintsConfig.model_fields, *METRICS]))


def unknown_constraints(raw: Mapping[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """Yield the places of constraints that are no metric, built in or registered."""
    search = raw.get("search")
    constraints = search.get("constraints") if isinstance(search, Mapping) else None
    if isinstance(constraints, Mapping):
        names = metric_names()
        yield from (("search", "constraints", key) for key in constraints if key not in names)


def quantities(task: Any) -> list[str]:
    """Return what a job may bound and trade off; ``task`` is its class, None for an unknown one.

    Metrics of other tasks are left out. Those that nothing gives are there, to be told as such.
    """
    names = metric_names()
    if task is None:
        return names
    tasks = registry_for("task")
    others = {tasks.get(name).metric_name for name in tasks} - {task.metric_name}
    if not task.compares_classes():
        others |= {"worst_class_accuracy", "accuracy_at_fault_rate", "worst_class_loss"}
    return [name for name in names if name not in others]


def _gives_value(name: str, task: Any) -> bool:
    """Whether a run of ``task`` has a value of the metric ``name``."""
    known = name in ConstraintsConfig.model_fields or METRICS.get(name).cost is not None
    return known or task is None or name == task.metric_name


def check_objectives(
    objectives: Sequence[str],
    devices: Sequence[str] | None,
    allowed: Sequence[str],
    task: Any,
) -> Iterator[Finding]:
    """Yield objectives that nothing gives, of devices that are not there, or given twice."""
    for i, text in enumerate(objectives):
        at = ("search", "objectives", i)
        problem = _quantity_problem(text, "objective", devices, allowed, task)
        if problem is not None:
            yield at, f"{dotted(at)}: {problem}"
        if text in objectives[:i]:
            yield at, f"{dotted(at)}: {text!r} is given twice"


def check_budgets(
    budgets: Mapping[str, Sequence[float]],
    devices: Sequence[str] | None,
    allowed: Sequence[str],
    task: Any,
) -> Iterator[Finding]:
    """Yield budgets of what is no cost, of devices that are not there, or given twice."""
    for text, limits in budgets.items():
        at = ("search", "budgets", text)
        problem = _quantity_problem(text, "cost", devices, allowed, task)
        if problem is None and METRICS.get(text.partition("[")[0]).maximise:
            problem = "more of it is better; a budget limits a cost, such as weights_kib"
        if problem is not None:
            yield at, f"{dotted(at)}: {problem}"
        for i, limit in enumerate(limits):
            if limit in limits[:i]:
                yield (*at, i), f"{dotted((*at, i))}: {limit:g} is given twice"


def _quantity_problem(
    text: str, what: str, devices: Sequence[str] | None, allowed: Sequence[str], task: Any
) -> str | None:
    """Return what is wrong with the name of a quantity, perhaps on one device."""
    name, bracket, rest = text.partition("[")
    device = rest.removesuffix("]")
    if name not in allowed:
        return f"unknown {what} {name!r}{nearest(name, allowed)} (allowed: {', '.join(allowed)})"
    if not _gives_value(name, task):
        return _without_value(name)
    if bracket and not METRICS.get(name).per_device:
        return f"{name} does not depend on a device; write {name}"
    if bracket and (not rest.endswith("]") or not device):
        return f"{text!r} is not of the form {name}[DEVICE]"
    if bracket and devices is not None and device not in devices:
        return _no_device(device, devices)
    return None


def check_constraints(
    constraints: ConstraintsConfig,
    devices: Sequence[str] | None,
    allowed: Sequence[str],
    task: Any,
) -> Iterator[Finding]:
    """Yield bounds of unknown quantities or devices, and limits that no value meets."""
    for name in (*ConstraintsConfig.model_fields, *(constraints.model_extra or {})):
        limit = getattr(constraints, name)
        at = ("search", "constraints", name)
        if limit is not None and limit != {} and name not in allowed:
            yield at, unknown_key(at, allowed)
        elif not _gives_value(name, task):
            yield at, f"{dotted(at)}: {_without_value(name)}"
        elif isinstance(limit, Bound):
            yield from _check_bound(limit, at)
        elif limit is not None:
            for device, bound in limit.items():
                if devices is not None and device not in devices and device not in ("min", "max"):
                    yield (*at, device), f"{dotted((*at, device))}: {_no_device(device, devices)}"
                yield from _check_bound(bound, (*at, device))


def _check_bound(bound: Bound, at: tuple[str | int, ...]) -> Iterator[Finding]:
    where = dotted(at)
    if bound.min is None and bound.max is None:
        yield at, f"{where}: give min, max or both"
    elif bound.min is not None and bound.max is not None and bound.min > bound.max:
        yield (*at, "min"), f"{where}: min {bound.min:g} is greater than max {bound.max:g}"
    share = at[-1] in METRICS and METRICS.get(str(at[-1])).share
    for side, value in (("min", bound.min), ("max", bound.max)):
        if value is None:
            continue
        # Every metric is a share, a count, a size or a time; a task's own may be anything.
        own = at[-1] not in ConstraintsConfig.model_fields and len(at) == 3 and not share
        if own:
            continue
        if value < 0:
            yield (*at, side), f"{where}.{side}: {value:g} must not be negative"
        elif value == 0 and side == "max":
            yield (*at, side), f"{where}.max: 0 must be greater than 0"
        elif share and value > 1:
            words = "accuracies" if "accuracy" in str(at[-1]) else "shares"
            percent = f"; for {value:g} % write {value / 100:g}" if value <= 100 else ""
            yield (*at, side), f"{where}.{side}: {words} are 0 to 1{percent}"


def _without_value(name: str) -> str:
    return f"the metric {name!r} is registered without a cost, so nothing gives its value"


def _no_device(name: str, devices: Sequence[str]) -> str:
    return f"there is no device {name!r}{nearest(name, devices)} (devices: {', '.join(devices)})"
