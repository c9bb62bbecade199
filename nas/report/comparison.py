"""How far the fronts of two runs agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.fronts.metrics import METRICS
from nas.fronts.pareto import FrontDifference, difference
from nas.record.result_types import Model, Results
from nas.report.results import device_names, metric_of, number
from search_spaces.errors import InputError


@dataclass(frozen=True)
class Gap:
    """The largest difference in one quantity among the architectures of both fronts.

    Attributes:
        quantity: what differs, e.g. ``latency_ms[cpu]``.
        id: of the architecture.
        a, b: its value in either run.
        compared: architectures that have the quantity in both runs.
        apart: how many of them have 95 % intervals that do not overlap; ``None`` for a
            quantity without intervals.
    """

    quantity: str
    id: str
    a: float
    b: float
    compared: int
    apart: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Two fronts side by side; ``str()`` is the text for people.

    Attributes:
        names: of the two runs, for the text.
        goals: objectives the fronts were compared on.
        accuracy: the split whose accuracy the volumes use.
        front: volumes and coverage, see :class:`nas.fronts.pareto.FrontDifference`.
        sizes: architectures on either front.
        shared: ids on both fronts, in the order of the first.
        only_a, only_b: ids on one front only.
        gaps: largest differences among the shared architectures.
        identical: the same architectures, and the same value of every compared quantity.
        notes: what makes the runs unlike and the comparison weaker.
    """

    names: tuple[str, str]
    goals: tuple[str, ...]
    accuracy: str
    front: FrontDifference
    sizes: tuple[int, int]
    shared: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    gaps: tuple[Gap, ...]
    identical: bool
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        a, b = self.names
        lines = [f"A: {a} ({self.sizes[0]} models)", f"B: {b} ({self.sizes[1]} models)"]
        lines += [f"note: {note}" for note in self.notes]
        same = len(self.shared)
        if self.identical:
            lines.append(f"the fronts are the same: {same} architectures, every figure equal")
        else:
            union = same + len(self.only_a) + len(self.only_b)
            lines.append(
                f"same architectures: {same} of {union} "
                f"({len(self.only_a)} only in A, {len(self.only_b)} only in B)"
            )
        front = self.front
        lines.append(f"objectives: {', '.join(self.goals)} ({self.accuracy} split)")
        ratio = front.hypervolume_ratio
        lines.append(
            "hypervolume B / A: "
            + ("undefined" if math.isnan(ratio) else f"{ratio:.4f}")
            + f" (A {front.hypervolume_a:.6g}, B {front.hypervolume_b:.6g})"
        )
        lines.append(
            f"coverage: A covers {front.coverage_a:.0%} of B, B covers {front.coverage_b:.0%} of A"
        )
        for gap in self.gaps:
            lines.append(_gap_text(gap))
        if not self.shared:
            lines.append("no architecture is on both fronts, so no figures to compare one by one")
        return "\n".join(lines)


def compare_results(a: Results, b: Results, *, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Compare the fronts of two results, as :func:`nas.report.results.load_results` gives them.

    Volumes and coverage use the objectives both runs searched for, with validation accuracy
    where both fronts have it (the search decided on it), else test accuracy.

    Raises:
        InputError: an empty front, or no objective in common.
    """
    for results, name in zip((a, b), names, strict=True):
        if not results["front"]:
            raise InputError(f"{name} has an empty front, which cannot be compared")
    notes = _notes(a, b)
    goals = [goal for goal in _goals(a) if goal in _goals(b)]
    if set(_goals(a)) != set(_goals(b)):
        notes.append(
            f"the objectives differ: A {', '.join(_goals(a))}; B {', '.join(_goals(b))}; "
            f"compared on {', '.join(goals) or 'none'}"
        )
    metric, higher = metric_of(a)
    both = [*a["front"], *b["front"]]
    validation = all(number(entry.get("validation_accuracy")) is not None for entry in both)
    key = "validation_accuracy" if validation else "test_accuracy"
    goals = [
        goal
        for goal in goals
        if all(objective_value(entry, goal, metric, key) is not None for entry in both)
    ]
    if not goals:
        raise InputError(
            f"{names[0]} and {names[1]} have no recorded objective in common "
            f"(A: {', '.join(_goals(a))}; B: {', '.join(_goals(b))})"
        )

    def points(results: Results) -> np.ndarray:
        sign = [-1.0 if maximised(goal, metric, higher) else 1.0 for goal in goals]
        return np.array(
            [
                [
                    s * value
                    for s, goal in zip(sign, goals, strict=True)
                    # Every goal kept has a value in each architecture.
                    if (value := objective_value(entry, goal, metric, key)) is not None
                ]
                for entry in results["front"]
            ]
        )

    in_a = {_identity(entry): entry for entry in a["front"]}
    in_b = {_identity(entry): entry for entry in b["front"]}
    shared = [arch for arch in in_a if arch in in_b]
    pairs = [(in_a[arch], in_b[arch]) for arch in shared]
    gaps = _gaps(pairs, [name for name in device_names(a) if name in device_names(b)], metric)
    same = len(in_a) == len(in_b) == len(shared)
    return Comparison(
        names=names,
        goals=tuple(goals),
        accuracy=key.partition("_")[0],
        front=difference(points(a), points(b)),
        sizes=(len(in_a), len(in_b)),
        shared=tuple(str(in_a[arch]["id"]) for arch in shared),
        only_a=tuple(str(e["id"]) for arch, e in in_a.items() if arch not in in_b),
        only_b=tuple(str(e["id"]) for arch, e in in_b.items() if arch not in in_a),
        gaps=tuple(gaps),
        identical=same and all(gap.a == gap.b for gap in gaps),
        notes=tuple(notes),
    )


def _goals(results: Results) -> list[str]:
    return [str(goal) for goal in results["goals"]] or [metric_of(results)[0]]


def _identity(entry: Model) -> str:
    return str(entry.get("arch") or entry["id"])


def maximised(goal: str, metric: str, higher: bool) -> bool:
    """Return whether more of an objective is better.

    Args:
        goal: an objective of the run, such as ``latency_ms[cpu]``.
        metric, higher: the task's metric, and whether more of it is better.
    """
    name = goal.partition("[")[0]
    if name in (metric, "accuracy"):
        return higher
    return name in METRICS.names() and METRICS.get(name).maximise


def objective_value(entry: Model, goal: str, metric: str, accuracy: str) -> float | None:
    """Return what an architecture of the front has of an objective; None if not recorded.

    Args:
        entry: of the results' ``front``.
        goal: an objective such as ``latency_ms[cpu]``.
        metric: the task's metric.
        accuracy: key of the accuracy that counts, ``validation_accuracy`` or ``test_accuracy``.
    """
    name, _, rest = goal.partition("[")
    if name in (metric, "accuracy"):
        return number(entry.get(accuracy))
    if rest:
        measured = (entry.get("devices") or {}).get(rest.rstrip("]")) or {}
        return number(measured.get(name))
    if name == "size_kib":
        return number(entry.get("size_kib"))
    return number((entry.get("costs") or {}).get(name))


def _gaps(
    pairs: list[tuple[dict[str, Any], dict[str, Any]]], devices: list[str], metric: str
) -> list[Gap]:
    gaps = []
    for quantity in ("test_accuracy", "validation_accuracy"):
        label = f"{quantity.partition('_')[0]} {metric}"
        rows = [(str(x["id"]), number(x.get(quantity)), number(y.get(quantity))) for x, y in pairs]
        gap = _largest(label, [(i, p, q) for i, p, q in rows if p is not None and q is not None])
        if gap:
            gaps.append(gap)
    for device in devices:
        shared, apart, bounded = [], 0, 0
        for x, y in pairs:
            p, q = ((e.get("devices") or {}).get(device) or {} for e in (x, y))
            first, second = number(p.get("latency_ms")), number(q.get("latency_ms"))
            if first is None or second is None:
                continue
            shared.append((str(x["id"]), first, second))
            ends = [number(m.get(k)) for m in (p, q) for k in ("low_ms", "high_ms")]
            known = [end for end in ends if end is not None]
            if len(known) == len(ends):
                bounded += 1
                apart += known[0] > known[3] or known[2] > known[1]
        gap = _largest(f"latency_ms[{device}]", shared, apart if bounded else None, relative=True)
        if gap:
            gaps.append(gap)
    return gaps


def _largest(
    quantity: str,
    rows: list[tuple[str, float, float]],
    apart: int | None = None,
    *,
    relative: bool = False,
) -> Gap | None:
    if not rows:
        return None

    def size(row: tuple[str, float, float]) -> float:
        _, a, b = row
        return abs(math.log(b / a)) if relative and a > 0 and b > 0 else abs(b - a)

    worst = max(rows, key=size)
    return Gap(quantity, *worst, compared=len(rows), apart=apart)


def _gap_text(gap: Gap) -> str:
    head = f"largest difference in {gap.quantity}: "
    if gap.a == gap.b:
        return f"{head}none, over {gap.compared} shared architectures"
    if gap.quantity.startswith("latency"):
        change = f"{gap.b / gap.a - 1:+.1%}" if gap.a else "from zero"
        text = f"{gap.a:.4g} ms in A, {gap.b:.4g} ms in B ({change}), {gap.id}"
    else:
        text = f"{gap.a:.4f} in A, {gap.b:.4f} in B ({gap.b - gap.a:+.4f}), {gap.id}"
    if gap.apart is not None:
        text += f"; the 95 % intervals of {gap.apart} of {gap.compared} do not overlap"
    return head + text


def _notes(a: Results, b: Results) -> list[str]:
    notes = []
    for label, get in (
        ("search space", lambda r: _space(r)),
        ("metric", lambda r: metric_of(r)[0]),
        ("devices", lambda r: ", ".join(_device(d) for d in r["devices"])),
        ("seed", lambda r: r.get("seed")),
    ):
        x, y = get(a), get(b)
        if x != y and x is not None and y is not None:
            notes.append(f"not the same {label}: A {x}; B {y}")
    if (told := other_data(a, b, "A", "B")) is not None:
        notes.append(told)
    return notes


def other_data(a: Results, b: Results, name_a: str, name_b: str) -> str | None:
    """Return what to say of two runs that were judged on other data, by what is on record."""
    of_a, of_b = ((r.get("provenance") or {}).get("splits") or {} for r in (a, b))
    if not of_a or not of_b:
        return None
    same = of_a.get("classes") == of_b.get("classes")
    if all(of_a.get(key) == of_b.get(key) for key in ("image_size", "channels")):
        sources = [
            {part.get("source_sha256") for part in (of.get("splits") or {}).values()}
            for of in (of_a, of_b)
        ]
        same = same and sources[0] == sources[1]
    if same:
        return None
    return (
        f"not the same data, so what models reach on it does not compare: {name_a} "
        f"{of_a.get('origin')}; {name_b} {of_b.get('origin')}"
    )


def _space(results: Results) -> str | None:
    space = results.get("space")
    if not isinstance(space, Mapping):
        return None
    size = space.get("cardinality")
    return f"{space.get('name')} ({space.get('preset')}, {size} architectures)"


def _device(device: dict[str, Any]) -> str:
    return f"{device.get('name')} ({device.get('runtime')} {device.get('runtime_version') or ''})"
