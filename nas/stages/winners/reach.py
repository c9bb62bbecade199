"""The networks that a budget has time to train: a space without those beyond them.

What a few hundred steps teach a large network is less than what as many seconds teach a small one,
and as the largest of a supernet, which is trained first and teaches the others, it takes the time
of all. So where a budget would leave the largest network of the front fewer than
:data:`REACH_STEPS` steps of its own, the space goes without its last resolutions and widths.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nas.stages.budget import divide, measurement_seconds, round_seconds, winner_lanes
from nas.stages.opened_job import network_space
from nas.stages.winners.share import possible_places
from search_spaces.planned import PlannedSpace
from search_spaces.spaces.presets import PresetSpace

if TYPE_CHECKING:
    from nas.data.splits import DataSplits
    from nas.job.schema import Job
    from nas.record.run_folder import RunStore
    from nas.stages.opened_job import RunContext
    from nas.stages.progress import Progress
    from nas.tasks import Task

REACH_STEPS = 500
"""Steps of its own that the largest network of a space should have. In ten minutes of a
processor, for coloured letters on photographs of 64 pixels, winners of a space of 29 million MACs
had 19 to 54 % of the validation images right after their first rung and 71 to 80 at last, of one of
5 million 72 to 75 and 78 to 82. With 1,000 steps asked for, little more than one width stayed on a
busy machine."""

REACH_EPOCHS = 20
"""Passes over few examples that do as well: digits are told after a hundred steps, nine epochs."""

KEPT = 2
"""Values of a parameter that stay whatever the time: networks of one width are hardly a front."""

_TIMED = 3

StepTime = Callable[[PlannedSpace], float]
"""Space -> seconds of a training step of its largest network."""


def narrow_space(context: RunContext, store: RunStore, progress: Progress) -> RunContext:
    """Return ``context`` with what its budget has time to train, told and recorded as the job's.

    Raises:
        InputError: measuring takes more than half of the budget.
    """
    job, space, line = within_reach(
        context.job, context.space, context.task, context.splits, device=context.accelerator
    )
    if line is None:
        return context
    progress.log(line)
    store.record_sections(job, "space")
    return replace(context, job=job, space=space)


def within_reach(
    job: Job,
    space: PlannedSpace,
    task: Task,
    splits: DataSplits,
    *,
    device: str = "cpu",
    step_s: StepTime | None = None,
) -> tuple[Job, PlannedSpace, str | None]:
    """Return a job and its space with what its budget has time to train.

    Args:
        job, space, task, splits: of the run.
        device: that it computes with.
        step_s: see :func:`narrowed`; measured when not given.

    Returns:
        job, space, and in words what was left out; None where nothing was.

    Raises:
        InputError: measuring takes more than half of the budget.
    """
    kept = narrowed(
        job,
        space,
        build=lambda other: network_space(other, task, splits),
        step_s=step_s or largest_step_seconds(job, task, splits, device=device),
        epoch_steps=epoch_steps(job, splits),
    )
    if not kept:
        return job, space, None
    places = possible_places(job)[0] * len(job.fronts())
    line, job = told(kept, space, places), job.with_space(kept)
    return job, network_space(job, task, splits), line


def narrowed(
    job: Job,
    space: PlannedSpace,
    *,
    build: Callable[[Job], PlannedSpace],
    step_s: StepTime,
    epoch_steps: int,
) -> dict[str, tuple[float, ...]]:
    """Return the parameters of ``job``'s space that its budget leaves out values of.

    Args:
        job: a checked job.
        space: of the job.
        build: gives the space of a job.
        step_s: takes a while, so it is asked for as few spaces as possible.
        epoch_steps: of a winner.

    Returns:
        parameter -> values that stay, ascending; empty where all networks are within reach, or
        where something else depends on the whole space.

    Raises:
        InputError: measuring takes more than half of the budget.
    """
    if not _may_narrow(job) or not isinstance(space, PresetSpace):
        return {}
    most_s = reachable_step(job, epoch_steps)
    kept: dict[str, tuple[float, ...]] = {}
    took, macs = step_s(space), _macs(space)
    while took > most_s:
        smaller = []
        for name in space.LARGE:
            values = kept.get(name, tuple(getattr(space.parameters, name)))
            if len(values) > KEPT:
                without = {**kept, name: values[:-1]}
                smaller.append((without, build(job.with_space(without))))
        if not smaller:
            break
        # Where one leaves out enough, the one that leaves most; else the one that leaves least.
        enough = [one for one in smaller if took * _macs(one[1]) / macs <= most_s]
        choose = max if enough else min
        kept, now = choose(enough or smaller, key=lambda one: _macs(one[1]))
        share = _macs(now) / macs
        # A step of a narrow network takes more than its share of operations.
        took, macs = (step_s(now) if took * share <= most_s else took * share), _macs(now)
    return kept


def reachable_step(job: Job, epoch_steps: int) -> float:
    """Return the seconds that a step of a winner may take for :data:`REACH_STEPS` of them.

    Where :data:`REACH_EPOCHS` of ``epoch_steps`` each are fewer steps, for those.

    Raises:
        InputError: measuring takes more than half of the budget.
    """
    assert job.budget is not None
    seconds = 60.0 * float(job.budget.cpu_minutes or job.budget.minutes or 0.0)
    measuring = round_seconds(job, measurement_seconds(job.measurement_protocol()))
    winners_s = winner_lanes(job) * divide(seconds, job.budget, measuring=measuring).winners
    places = possible_places(job)[0] * len(job.fronts())
    return winners_s / (places * min(REACH_STEPS, REACH_EPOCHS * epoch_steps))


def largest_step_seconds(
    job: Job, task: Task, splits: DataSplits, *, device: str = "cpu"
) -> StepTime:
    """Return what times a step of the largest network of a space, in float, here and now.

    The fastest of a few, in seconds of the processor: other load, which may end soon, is no reason
    to do without networks.
    """
    from nas.stages.build_supernet import make_supernet
    from supernet.training.own_time import OwnTraining, suited_recipe

    now = time.process_time if device == "cpu" else time.monotonic

    def step_s(space: PlannedSpace) -> float:
        supernet = make_supernet(space, job.supernet)
        plan = supernet.plan(space.largest())
        batches = splits.training_batches(
            job.finetune.batch_size, seed=job.seed, size=plan.input_size
        )
        training = OwnTraining(
            supernet, plan, batches=batches, loss=task.loss,
            distillation_loss=task.distillation_loss, recipe=suited_recipe(plan), now=now,
            device=device,
        )  # fmt: skip
        seconds = []
        for _ in range(_TIMED + 1):
            begun = now()
            training.run(until=training.spent + 1e-9, total=1e9)
            seconds.append(now() - begun)
        return min(seconds[1:])

    return step_s


def told(kept: Mapping[str, tuple[float, ...]], space: PlannedSpace, places: int) -> str:
    """Return in words what ``kept`` leaves out of ``space``, why, and what keeps it.

    Args:
        kept: see :func:`narrowed`.
        space: of the job.
        places: networks that share the time.
    """
    assert isinstance(space, PresetSpace)
    left = []
    for name, values in kept.items():
        out = [v for v in getattr(space.parameters, name) if v not in values]
        left.append(f"{name} {', '.join(f'{v:g}' for v in out)}")
    return (
        f"space: without {' and '.join(left)}: with them the largest network of the front would "
        f"have too few steps of its own (fewer than {REACH_STEPS}, or {REACH_EPOCHS} epochs); give "
        + (
            f"more time, fewer networks than {places} (search.front_size), or "
            if places > 1
            else "more time, or "
        )
        + "budget.narrow: false"
    )


def epoch_steps(job: Job, splits: DataSplits) -> int:
    """Return how many steps of a winner are a pass over the training examples."""
    return len(splits.training_batches(job.finetune.batch_size, seed=job.seed))


def _may_narrow(job: Job) -> bool:
    """Whether nothing but this run depends on the space of ``job``."""
    if job.budget is None or not job.budget.narrow:
        return False
    elsewhere: tuple[Any, ...] = (
        job.study, job.search.warm_start, job.supernet.init_from, job.supernet.focus,
    )  # fmt: skip
    known = job.latency.known_devices not in (None, "packaged")
    return not known and all(one is None for one in elsewhere)


def _macs(space: PlannedSpace) -> int:
    return int(space.plan(space.largest()).macs)
