"""A made-up finished run over real architectures of the ``mobilenet`` space."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.fronts.pareto import hypervolume, knee, nondominated
from nas.record.result_types import (
    SCHEMA,
    BoundRecord,
    DeviceRecord,
    Evaluated,
    Latency,
    Model,
    Results,
    Sample,
)
from search_spaces.seeds import derive_rng
from search_spaces.spaces.mobilenet import MobileNetSpace

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
           "Bag", "Ankle boot")  # fmt: skip
DEVICES = {"cpu": 1.0, "board": 4.2}
"""Device -> how much slower than the first."""


def synthetic_results(*, evaluations: int = 140, preset: str = "28x28") -> dict[str, Any]:
    """Return results in the form of ``results.json``; deterministic.

    Accuracy rises with the logarithm of the weights and bits, latency with MACs, and both
    carry noise, so fronts, importance and predictors look as those of a run do.
    """
    rng = derive_rng(7, "report")
    space = MobileNetSpace.from_config(preset=preset, input_channels=1, outputs=10)
    archs = [space.smallest(), space.largest()]
    while len(archs) < evaluations:
        arch = space.sample(rng)
        archs.append(arch)
    genes = space.genes(archs)
    costs = space.costs(genes)
    bits = costs["weight_bits_mean"] + costs["activation_bits_mean"]
    score = 0.7 * np.log(costs["parameters"]) + 0.35 * np.log(costs["macs"]) + 0.5 * np.sqrt(bits)
    score = (score - score.min()) / np.ptp(score)
    accuracy = 0.925 - 0.16 * (1 - score) ** 2 + rng.normal(0, 0.004, len(archs))
    latency = 0.08 + costs["macs"] / 4.5e6 * (0.6 + 0.4 * costs["weight_bits_mean"] / 8)
    metrics = [
        {
            "accuracy": round(float(accuracy[i]), 4),
            **{f"latency_ms[{d}]": round(float(latency[i] * f), 4) for d, f in DEVICES.items()},
            **{name: float(values[i]) for name, values in costs.items()},
        }
        for i in range(len(archs))
    ]
    objectives = np.array([[-m["accuracy"], m["latency_ms[cpu]"]] for m in metrics])
    bounds = {
        "latency_ms[cpu]": round(float(np.quantile(latency, 0.7)), 1),
        "weights_kib": round(float(np.quantile(costs["weights_kib"], 0.9))),
    }
    budget = bounds["latency_ms[cpu]"]
    violations = np.array([[m[name] - bound for name, bound in bounds.items()] for m in metrics])
    feasible = (violations <= 0).all(axis=1)
    on_front = nondominated(objectives, violations)
    rows = np.flatnonzero(on_front)
    knee_row = rows[knee(objectives[rows])]
    entries = {}
    for i in range(len(archs)):
        devices = {}
        for device, factor in DEVICES.items():
            measured = float(latency[i] * factor * np.exp(rng.normal(0, 0.02)))
            half = measured * rng.uniform(0.005, 0.03)
            predicted = float(latency[i] * factor * np.exp(rng.normal(0, 0.05)))
            devices[device] = Latency(
                latency_ms=measured,
                low_ms=measured - half,
                high_ms=measured + half,
                valid=True,
                predicted_ms=predicted,
                predicted_low_ms=predicted * 0.9,
                predicted_high_ms=predicted * 1.12,
                feasible=bool(device != "cpu" or measured <= budget),
            )
        plan = asdict(space.plan(archs[i]))
        entries[i] = Model(
            id=archs[i].id,
            arch=str(archs[i]),
            validation_accuracy=metrics[i]["accuracy"],
            costs={name: float(values[i]) for name, values in costs.items()},
            devices=devices,
            feasible=bool(feasible[i]),
            plan={"input_shape": plan["input_shape"], "blocks": plan["blocks"]},
        )
    front = []
    for i in sorted(rows, key=lambda i: objectives[i, 1]):
        test = float(accuracy[i] - 0.004 + rng.normal(0, 0.002))
        front.append(
            replace(
                entries[i],
                test_accuracy=test,
                per_class={
                    name: float(np.clip(test + 0.06 * np.sin(3 * k) - 0.02, 0, 1))
                    for k, name in enumerate(CLASSES)
                },
                size_kib=entries[i].costs["weights_kib"] * 1.1 + 9,
                model=f"models/{entries[i].id}.onnx",
                knee=bool(i == knee_row),
                parity={
                    "agreement": 0.9975,
                    "accuracy_difference": 0.0003,
                    "max_logit_error": 0.02,
                },
            )
        )
    # Nothing on a front may be taken on trust: one measurement here was not steady.
    unsteady = replace(
        front[-1].devices["board"], valid=False, reasons=("drift between halves 4.1 % > 3 %",)
    )
    front[-1] = replace(front[-1], devices={**front[-1].devices, "board": unsteady})
    losers = [i for i in np.argsort(objectives[:, 1]) if not on_front[i] and accuracy[i] > 0.88][:6]
    over = [i for i in range(len(archs)) if violations[i, 0] > 0][:3]
    rejected = [replace(entries[i], why="dominated when measured") for i in losers]
    rejected += [
        replace(entries[i], why=f"latency_ms[cpu] over its budget of {budget}") for i in over
    ]
    reference = [-0.70, float(latency.max() * 1.1)]
    values = [
        {"evaluations": n, "value": hypervolume(objectives[:n][feasible[:n]], reference)}
        for n in range(20, len(archs) + 1, 10)
    ]
    goals = ("accuracy", "latency_ms[cpu]")
    return Results(
        schema=SCHEMA,
        name="fashion-mnist",
        seed=7,
        command="nas run experiments/fashion_mnist.yaml --output runs/fashion --seed 7",
        space={
            "name": "mobilenet",
            "preset": preset,
            "cardinality": str(space.cardinality()),
            "resolutions": [20, 24, 28],
        },
        devices=tuple(
            DeviceRecord(
                name=d,
                runtime="onnxruntime",
                runtime_version="1.23.2",
                parameters={"threads": 1},
            )
            for d in DEVICES
        ),
        goals=goals,
        constraints=tuple(BoundRecord(metric=name, bound=bound) for name, bound in bounds.items()),
        front=tuple(front),
        rejected=tuple(rejected),
        evaluations=tuple(
            Evaluated(
                number=i,
                round=i // 30,
                id=archs[i].id,
                metrics=metrics[i],
                feasible=bool(feasible[i]),
                choices=dict(archs[i].items),
                # As an older version wrote it.
                extra={"predicted": {k: v for k, v in metrics[i].items() if "latency" in k}},
            )
            for i in range(len(archs))
        ),
        hypervolume={"reference": reference, "goals": list(goals), "values": values},
        latency_samples=tuple(
            Sample.from_json({**entries[i].devices[d], "device": d, "id": entries[i].id})
            for i in range(0, len(archs), 3)
            for d in DEVICES
        ),
        accuracy_predictor=tuple(
            {"round": r, "points": 30 + 30 * r, "kendall_tau": 0.9 - 0.4 * 0.6**r,
             "rmse": 0.006 + 0.01 * 0.5**r}
            for r in range(4)
        ),
        training=tuple(
            {"step": n, "steps": 2000, "loss": 0.4 + 1.9 * float(np.exp(-n / 300)),
             "learning_rate": 0.1, "phase": "sandwich"}
            for n in range(0, 2001, 20)
        ),
        timing=tuple(
            {"stage": stage, "seconds": seconds}
            for stage, seconds in (("data", 2.1), ("supernet", 612.0), ("search", 214.5),
                                   ("verify", 301.2), ("export", 44.0), ("report", 0.8))
        ),
        provenance={
            "versions": {"edge-nas": "0.1.0", "python": "3.11.2", "torch": "2.14.1"},
            "hardware": {"processor": "x86-64, 2 cores", "memory_gib": 8, "pinned": False},
            "splits": {"splits": {"train": {"images": 52000}, "validation": {"images": 6000},
                                  "test": {"images": 10000}}},
            "seed": 7,
            "created": "2025-01-31T12:00:00+00:00",
        },
    ).to_json()  # fmt: skip


def minimal_results() -> dict[str, Any]:
    """Return the least a run can leave: a name and one model with an id."""
    return {"name": "least", "front": [{"id": "0123456789", "arch": "width=1"}]}


def write_run(folder: Path, results: dict[str, Any]) -> Path:
    """Write ``results.json`` into ``folder`` and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def _whole() -> dict[str, Any]:
    return synthetic_results()


@pytest.fixture
def results(_whole) -> dict[str, Any]:
    """A whole run's results, free to change."""
    return copy.deepcopy(_whole)


@pytest.fixture
def minimal() -> dict[str, Any]:
    return minimal_results()


@pytest.fixture
def save():
    return write_run
