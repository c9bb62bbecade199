"""What the supernet experiments share: jobs in code, training by a recipe, how results are told."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.device import device_fingerprint
from nas.job.schema import Job, job_space
from nas.studies.source import Opened
from nas.tasks import TASKS
from search_spaces.atomic import write_json_atomic
from search_spaces.bits import bit_choices, set_bits
from search_spaces.plan import FLOAT_BITS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nas.stages.opened_job import RunContext
    from search_spaces.plan import NetworkPlan
    from search_spaces.planned import PlannedSpace
    from search_spaces.space import Arch
    from supernet.network import Supernet
    from supernet.training.own_time import OwnRecipe

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "supernet"
BATCH = 128


def open_job(values: dict[str, Any]) -> Opened:
    """Check a job given as a mapping, and load its data."""
    job = Job.model_validate(values)
    task = TASKS.get(job.task)(label_smoothing=job.supernet.label_smoothing)
    splits = task.load(job.data, job.seed)
    space = job_space(job, input_channels=splits.channels, outputs=task.outputs(splits))
    return Opened(job, task, splits, space)


def accuracy(opened: Opened, supernet: Supernet, arch: Any) -> float:
    """Return the validation accuracy of one architecture, calibrated at its bits."""
    from nas.stages.evaluator import Evaluator

    evaluator = Evaluator(supernet, opened.splits, opened.task)
    return evaluator.accuracy(evaluator.network(arch))


def train_alone(
    network: Supernet,
    plan: NetworkPlan,
    recipe: OwnRecipe,
    seconds: float,
    context: RunContext,
    *,
    seed: int,
    batch_size: int = BATCH,
) -> dict[str, Any]:
    """Return the steps and the validation accuracy that ``seconds`` of a processor give."""
    from supernet.training.own_time import OwnTraining

    training = OwnTraining(
        network,
        plan,
        batches=context.splits.training_batches(batch_size, seed=seed, size=plan.input_size),
        loss=context.task.loss,
        distillation_loss=context.task.distillation_loss,
        recipe=recipe,
        now=time.process_time,
    )
    training.run(until=seconds, total=seconds)
    reached = training.reached()
    evaluator = context.evaluating(reached)
    accuracy = evaluator.accuracy(evaluator.network(plan, own=reached))
    return {"steps": training.step, "validation": accuracy}


def plans_at(space: PlannedSpace, arch: Arch, widths: Iterable[int]) -> dict[int, NetworkPlan]:
    """Return ``arch`` in float, by 32, and at each bit-width of weights and activations."""
    from supernet.training.subnets import float_plan

    genes, choices = space.genes([arch]), bit_choices(space)
    plans = {FLOAT_BITS: float_plan(space.plan(arch))}
    for bits in widths:
        at = space.decode(set_bits(space, genes, bits, bits, choices=choices))[0]
        plans[bits] = space.plan(at)
    return plans


def write_result(name: str, values: dict[str, Any]) -> str:
    """Write a result with versions and machine; return its path in the repository."""
    path = RESULTS / f"{name}.json"
    write_json_atomic(
        path,
        {
            **values,
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in ("torch", "numpy", "scipy")},
            },
            "machine": device_fingerprint(),
        },
    )
    return str(path.relative_to(ROOT))


def mean_and_interval(values: Any) -> dict[str, float]:
    """Return the mean and its 95 % interval (Student's t) over independent values."""
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return {"mean": mean, "low": mean, "high": mean}
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return {"mean": mean, "low": mean - half, "high": mean + half}
