"""What a run found: the content of ``results.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.fronts.budgets import CostBudget, served
from nas.fronts.costs import exact_names
from nas.fronts.metrics import Constraint, Goal, violations
from nas.fronts.pareto import hypervolume, reference_point
from nas.models.sparsity import patterns_of, sparse_cost
from nas.record.result_types import (
    SCHEMA,
    BoundRecord,
    BudgetRecord,
    DeviceRecord,
    Evaluated,
    FrontRecord,
    Latency,
    Model,
    Results,
    Sample,
)
from nas.record.standing import Standing, standing
from search_spaces.planned import PlannedSpace
from search_spaces.space import Arch

if TYPE_CHECKING:
    from devices.device import DeviceSpec
    from devices.measuring.measurement import Measurement
    from nas.data.splits import DataSplits
    from nas.fronts.spec import FrontSpec
    from nas.job.schema import Job
    from nas.models.parity import Parity
    from nas.record.evaluations import Evaluation
    from nas.record.run_folder import RunStore
    from nas.tasks import Task
    from predictors.registry import Adapted

_COVERAGE = 0.95


@dataclass(frozen=True, eq=False)
class Verified:
    """A candidate whose exported file was evaluated and measured.

    Attributes:
        arch: the architecture.
        path: the exported file.
        metrics: real ones by ``str(metric)``; accuracy on the validation set, of the file.
        measurements: by device.
        parity: of the file with its network.
    """

    arch: Arch
    path: Path
    metrics: Mapping[str, float]
    measurements: Mapping[str, Measurement]
    parity: Parity


def assemble(
    *,
    job: Job,
    store: RunStore,
    space: PlannedSpace,
    fronts: Sequence[FrontSpec],
    goals: Sequence[Goal],
    constraints: Sequence[Constraint],
    specs: Sequence[DeviceSpec],
    evaluations: Sequence[Evaluation],
    verified: Sequence[Verified],
    front: Mapping[Verified, Sequence[str]],
    tested: Mapping[Arch, Mapping[str, Any]],
    samples: Mapping[str, Mapping[Arch, Measurement]],
    fitted: Mapping[str, Sequence[Arch]],
    predictors: Mapping[str, Adapted],
    quality: Sequence[Mapping[str, Any]],
    training: Sequence[Mapping[str, Any]],
    task: Task,
    splits: DataSplits,
    beside: Mapping[Arch, Mapping[str, float]],
) -> Results:
    """Return what ``results.json`` will hold; an undefined figure is None.

    Args:
        job, store, space, fronts, goals, constraints, specs: of the run.
        evaluations: of the search, in order.
        verified: every candidate whose file was measured.
        front: those of them on any front, with the names of the fronts.
        tested: ``metrics`` on the test set, and the metric by class, of each of the front.
        samples: measurements by device and architecture.
        fitted: by device, the architectures that ``predictors`` were fitted to.
        predictors: by device, as they were before verification, so that predicted and
            measured latencies can be held against each other fairly.
        quality: of the accuracy predictor.
        training: history of the supernet's training.
        task, splits: what was learnt, from which data.
        beside: further metrics of the task on the validation set, by architecture.
    """
    manifest = store.manifest()
    metric, sign = task.metric_name, -1.0 if task.higher_is_better else 1.0
    members = sorted(front, key=lambda v: (sign * v.metrics[metric], str(v.arch)))
    on_front = {v.arch for v in members}
    standings = {
        spec.name: standing(
            spec,
            [v for v in members if spec.name in front[v]],
            tested,
            task,
            validation_images=len(splits.validation),
            test_images=splits.test_images,
        )
        for spec in fronts
    }
    # The front that comes first is the one of all devices, where there is one.
    at_knee = next((s.knee for s in standings.values() if s.knee is not None), None)

    def model(item: Verified) -> Model:
        return Model(
            id=item.arch.id,
            arch=str(item.arch),
            # The task's metric, whatever its name; "validation" has it by name.
            validation_accuracy=item.metrics[metric],
            validation=_finite({metric: item.metrics[metric], **beside.get(item.arch, {})}),
            metrics=_finite(item.metrics),
            costs=_finite(
                {
                    **{name: item.metrics[name] for name in exact_names(item.metrics)},
                    **_sparse_cost(space, item.arch, job),
                }
            ),
            size_kib=item.path.stat().st_size / 1024,
            knee=item.arch == at_knee,
            feasible=_feasible(constraints, item.metrics),
            devices={
                name: Latency(
                    **_measured(measurement),
                    **_prediction(predictors.get(name), item.arch),
                    feasible=_feasible_on(name, constraints, item.metrics),
                )
                for name, measurement in item.measurements.items()
            },
            parity=item.parity.to_json(),
            plan=_plan(space, item.arch, job),
        )

    entries = [
        replace(
            model(item),
            test_accuracy=tested[item.arch]["metrics"][metric],
            test=_finite(tested[item.arch]["metrics"]),
            per_class=tested[item.arch]["per_class"],
            model=f"models/{item.arch.id}.onnx",
            fronts=tuple(front[item]),
            knees=tuple(name for name, s in standings.items() if s.knee == item.arch),
            **_stands(item.arch, {name: standings[name] for name in front[item]}),
        )
        for item in members
    ]
    rejected = []
    for item in verified:
        if item.arch not in on_front:
            described = model(item)
            why = "dominated when measured" if described.feasible else "misses a bound"
            rejected.append(replace(described, why=why))
    found = Results(
        schema=SCHEMA,
        name=job.name,
        seed=job.seed,
        command=manifest["command"],
        metric=metric,
        higher_is_better=task.higher_is_better,
        task=_task(job.task, task, splits),
        space={
            "name": space.name,
            "preset": job.space.preset,
            "cardinality": str(space.cardinality()),
        },
        devices=tuple(
            DeviceRecord(
                name=s.name,
                runtime=s.runtime,
                parameters=dict(s.parameters),
                runtime_version=_runtime_version(samples.get(s.name, {})),
            )
            for s in specs
        ),
        fronts=tuple(
            FrontRecord(
                name=f.name,
                goals=tuple(str(goal.metric) for goal in f.goals),
                constraints=tuple(c.name for c in f.constraints),
            )
            for f in fronts
        ),
        goals=tuple(str(goal.metric) for goal in goals),
        constraints=tuple(
            BoundRecord(metric=str(c.metric), bound=c.bound, upper=c.upper, confidence=c.confidence)
            for c in constraints
        ),
        budgets=tuple(_budget(one, members) for one in job.cost_budgets()),
        front=tuple(entries),
        rejected=tuple(rejected),
        evaluations=tuple(_evaluation(e, constraints) for e in evaluations),
        hypervolume=_hypervolumes(evaluations, goals, constraints),
        latency_samples=tuple(_latency_samples(samples, fitted, predictors)),
        accuracy_predictor=tuple(dict(q) for q in quality),
        training=tuple(dict(record) for record in training),
        timing=tuple(store.timing()),
        provenance=_provenance(manifest, job.seed),
    )
    # As it will be read: a metric of which there is none must not take the results with it.
    return Results.from_json(found.to_json())


def _sparse_cost(space: PlannedSpace, arch: Arch, job: Job) -> dict[str, float]:
    plan = space.plan(arch)
    return sparse_cost(plan, patterns_of(job, plan))


def _plan(space: PlannedSpace, arch: Arch, job: Job) -> dict[str, Any]:
    """Return the layers of an architecture, with number formats and patterns of zeros by name."""
    patterns = patterns_of(job, space.plan(arch))
    plan = asdict(space.plan(arch))
    for block in plan["blocks"]:
        for layer in block["layers"]:
            if layer["name"] in patterns:
                layer["sparsity"] = str(patterns[layer["name"]])
            name = job.supernet.quantizers.weight_format(int(layer["weight_bits"]))
            if name:
                layer["weight_format"] = name
    return plan


def _task(name: str, task: Task, splits: DataSplits) -> dict[str, Any]:
    """Return what report and cards say of a task and of what its files take and give."""
    from nas.data.images import cut_of

    cut = cut_of(splits.train.images)
    kind = task.metric_kind()
    further = {
        key: {"unit": each.unit, "higher_is_better": each.maximise, "share": each.share}
        for key, each in task.further_metrics.items()
    }
    return {
        "name": name,
        "metric": {"unit": kind.unit, "share": kind.share},
        "further_metrics": further,
        "targets": splits.targets,
        "has_classes": task.has_classes,
        "input": splits.input_text,
        **({} if cut is None else {"pictures": cut}),
        **({} if splits.sound is None else {"sound": dict(splits.sound)}),
        "output": task.output_text(splits),
    }


def _evaluation(evaluation: Evaluation, constraints: Sequence[Constraint]) -> Evaluated:
    return Evaluated(
        number=evaluation.number,
        round=evaluation.attributes.get("round", 0),
        id=evaluation.arch.id,
        metrics=_finite(evaluation.metrics),
        early_stopped=bool(evaluation.attributes.get("early_stopped", False)),
        feasible=_feasible(constraints, evaluation.metrics),
        choices=dict(evaluation.arch.items),
        latency_source="predicted",
    )


def _latency_samples(
    samples: Mapping[str, Mapping[Arch, Measurement]],
    fitted: Mapping[str, Sequence[Arch]],
    predictors: Mapping[str, Adapted],
) -> Iterator[Sample]:
    for device, found in samples.items():
        learned_from = set(fitted[device])
        for arch, measurement in found.items():
            yield Sample(
                device=device,
                id=arch.id,
                role="fit" if arch in learned_from else "verify",
                **_measured(measurement),
                **_prediction(predictors.get(device), arch),
            )


def _provenance(manifest: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {
        "versions": manifest["versions"],
        "hardware": manifest["hardware"],
        "splits": manifest["data"],
        "seed": seed,
        "created": manifest["created"],
        "threads": manifest["threads"],
        "accelerator": manifest["accelerator"],
        "replayed_measurements": manifest["measurements"] is not None,
    }


def _budget(budget: CostBudget, members: Sequence[Verified]) -> BudgetRecord:
    found = served([budget], [item.metrics for item in members], range(len(members)))
    return BudgetRecord(
        metric=str(budget.metric),
        limit=budget.limit,
        model=members[found[0]].arch.id if found else None,
    )


def _feasible(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> bool:
    return all(v <= 0 for v in violations(constraints, metrics).values())


def _stands(arch: Arch, standings: Mapping[str, Standing]) -> dict[str, Any]:
    """Return whether a row is Pareto-optimal on any of its fronts by its final figures."""
    beaten = {name: s.beaten[arch].id for name, s in standings.items() if arch in s.beaten}
    return {"pareto": len(beaten) < len(standings), "beaten_by": beaten}


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics as JSON holds them: null where one is undefined."""
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}


def _measured(measurement: Measurement) -> dict[str, Any]:
    return {
        "latency_ms": measurement.latency_ms,
        "low_ms": measurement.low_ms,
        "high_ms": measurement.high_ms,
        "source": measurement.conditions.get("latency_source", "measured"),
        "energy_mj": measurement.energy_mj,
        "valid": measurement.valid,
        "busy": measurement.busy,
        "reasons": tuple(getattr(one, "value", str(one)) for one in measurement.reasons),
    }


def _prediction(adapted: Adapted | None, arch: Arch) -> dict[str, Any]:
    if adapted is None:
        return {"predicted_ms": None, "predicted_low_ms": None, "predicted_high_ms": None}
    mean, _ = adapted.predict([arch])
    low, high = adapted.interval([arch], _COVERAGE)
    return {
        "predicted_ms": float(mean[0]),
        "predicted_low_ms": float(low[0]),
        "predicted_high_ms": float(high[0]),
    }


def _feasible_on(
    device: str, constraints: Sequence[Constraint], metrics: Mapping[str, float]
) -> bool:
    """Whether ``device``'s own bounds and those of no device hold."""
    own = [c for c in constraints if c.metric.device in (None, device)]
    return _feasible(own, metrics)


def _runtime_version(found: Mapping[Arch, Measurement]) -> str | None:
    for measurement in found.values():
        return measurement.runtime_version
    return None


def _hypervolumes(
    evaluations: Sequence[Evaluation], goals: Sequence[Goal], constraints: Sequence[Constraint]
) -> dict[str, Any]:
    points = [
        (
            e.number,
            [g.sign * e.metrics[str(g.metric)] for g in goals],
            _feasible(constraints, e.metrics),
        )
        for e in evaluations
    ]
    feasible = np.array([values for _, values, ok in points if ok])
    if not len(feasible):
        return {"reference": None, "goals": [str(g.metric) for g in goals], "values": []}
    reference = reference_point(feasible)
    values = []
    step = max(1, len(points) // 50)
    for count in [*range(step, len(points), step), len(points)]:
        seen = np.array([v for _, v, ok in points[:count] if ok])
        volume = hypervolume(seen, reference) if len(seen) else 0.0
        values.append({"evaluations": count, "value": volume})
    return {
        "reference": reference.tolist(),
        "goals": [str(g.metric) for g in goals],
        "values": values,
    }
