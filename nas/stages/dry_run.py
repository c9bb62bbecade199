"""What a run will do and about how long it takes, without doing it.

Times come from a model of each stage whose speed is measured on this
machine for about a second: training a convolution costs three times its forward pass
(forward, gradient of the input, gradient of the weights), and small layers reach the
throughput of the small convolution that is timed here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devices.measuring.conditions import allowed_cores
from nas.job.schema import Job
from nas.stages.budget import (
    divide,
    measurement_seconds,
    minutes_for,
    models_seconds,
    round_seconds,
    winner_lanes,
    winner_workers,
)
from nas.stages.training import plan_training
from nas.stages.winners.reach import StepTime, within_reach
from nas.stages.winners.share import FIRST_RUNG, possible_places, share_winners, teaching
from search_spaces.planned import PlannedSpace
from search_spaces.seeds import derive_rng

FORWARD_TO_TRAINING = 3.0
FAKE_QUANTISER_FACTOR = 1.6
"""Training with simulated quantisation against float training of the same network."""
THREAD_GAIN = 0.6
"""What a further thread adds to the throughput of networks as small as these."""


@dataclass(frozen=True)
class StageEstimate:
    """One stage: what it does, and its seconds (None where they cannot be known)."""

    name: str
    work: str
    seconds: float | None


@dataclass(frozen=True)
class Estimate:
    """The plan of a run.

    Attributes:
        space: name of the search space.
        cardinality: exact number of its architectures.
        evaluations: real evaluations of accuracy the search will make.
        measurements: models measured, on all devices together; a front that stays short has more.
        stages: in order.
        files: that will be in the run folder.
        total: what the sum of all stages is.
        warnings: what is doubtful about the data.
    """

    space: str
    cardinality: int
    evaluations: int
    measurements: int
    stages: list[StageEstimate]
    files: list[Path] = field(default_factory=list)
    total: str = "estimated time"
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds of all stages whose time can be estimated."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    def lines(self) -> list[str]:
        """Return the plan as lines of text."""
        text = [
            f"space: {self.space}, exactly {self.cardinality} architectures",
            f"evaluations: {self.evaluations} real ones, chosen by the search",
            f"measurements: about {self.measurements} models, on all devices together",
            "stages:",
        ]
        for stage in self.stages:
            took = "unknown" if stage.seconds is None else _minutes(stage.seconds)
            text.append(f"  {stage.name:<13} {took:>8}  {stage.work}")
        text.append(f"{self.total}: {_minutes(self.seconds)}")
        text.append("files:")
        text += [f"  {path}" for path in self.files]
        return [*text, *(f"warning: {warning}" for warning in self.warnings)]


def estimate(
    job: Job,
    folder: Path,
    *,
    macs_per_second: Callable[[int], float] | None = None,
    step_seconds: Callable[..., tuple[float, float]] | None = None,
    largest_s: StepTime | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> Estimate:
    """Return the plan of a run of ``job`` into ``folder``; nothing is written.

    Args:
        job: a checked job.
        folder: the run folder it would have.
        macs_per_second: throughput of a forward pass for an image side in pixels; measured
            when not given.
        step_seconds: gives the seconds of a warm-up step and of a full training step;
            :func:`nas.stages.step_time.step_seconds`, which takes a few, when not given.
        largest_s: gives the seconds of a step of a space's largest network; measured when not
            given.
        told: called with a line for each thing that takes seconds, before it.

    Raises:
        InputError, EnvironmentProblem: the data cannot be read.
        InputError: weights to start from learnt from test images.
        InfeasibleError: bounds on costs, or on the model file, that no architecture keeps.
    """
    from nas.models.training_gate import comes_trained
    from nas.stages.build_supernet import emulated_precision, focus_archs
    from nas.stages.learnt_before import require_unseen
    from nas.stages.opened_job import (
        RunContext,
        budgets_out_of_reach,
        loaded,
        network_space,
        require_fit,
    )
    from nas.stages.search_stage import feasible_pool

    told("reading the data")
    task, splits = loaded(job)
    record = splits.record()
    seen = require_unseen(job, splits, record)
    if not job.says_how_long():
        job = job.with_minutes(minutes_for(job, splits))
    told(f"building the space {job.space.name!r}")
    space = network_space(job, task, splits)
    job, space, left_out = within_reach(job, space, task, splits, step_s=largest_s)
    mean = _mean_macs(space)
    pool = feasible_pool(job, space, job.fronts())
    require_fit(RunContext(job, task, splits, space, "cpu", 1), pool, job.constraints())
    trained = comes_trained(space, splits, task)
    told("timing this machine")
    speed = (macs_per_second or measure_throughput)(splits.image_size)

    training = job.supernet
    per_step = step_seconds or _timed_steps()
    told("timing steps of training")
    batches = splits.training_batches(training.batch_size, seed=job.seed)
    epochs = training.passes() or 0.0
    steps = round(epochs * (len(splits.train) // min(training.batch_size, len(splits.train))))
    if training.minutes is not None or job.budget is not None:
        train_s, work = 60.0 * (training.minutes or 0.0), f"{training.minutes or 0.0:g} minutes"
    else:
        warm, full = per_step(
            training, space, task, batches, seed=job.seed, focus=focus_archs(training, space),
            trained=trained,
        )  # fmt: skip
        # A network that comes trained has learnt what the warm-up would teach it.
        warm_steps = 0 if trained else min(steps, round(training.warmup_epochs * len(batches)))
        train_s = warm_steps * warm + (steps - warm_steps) * full
        work = f"{steps} steps of {training.batch_size} images"

    search = job.search
    images = min(search.validation_images or len(splits.validation), len(splits.validation))
    one_evaluation = FAKE_QUANTISER_FACTOR * mean / speed * (images + len(splits.calibration))
    protocol = job.measurement_protocol()
    one_measurement = measurement_seconds(protocol, 1e3 * mean / speed)
    sampled = len(job.devices) * search.latency_samples
    fronts = len(job.fronts())
    fewest, places = (min(fronts * each, search.evaluations) for each in possible_places(job))
    verified = len(job.devices) * places
    models = (
        f"{places} models" if fewest == places else f"{fewest} to {places} models, as time allows,"
    )
    where = f" on {len(job.devices)} devices" if len(job.devices) > 1 else ""
    finetune = (
        places * (job.finetune.epochs or 0.0) * len(splits.train)
        * FORWARD_TO_TRAINING * FAKE_QUANTISER_FACTOR * mean / speed
    )  # fmt: skip
    stages = [
        StageEstimate("supernet", work, train_s),
        StageEstimate(
            "latency",
            f"{sampled} models measured",
            models_seconds(job, search.latency_samples, one_measurement),
        ),
        StageEstimate(
            "search",
            f"{search.evaluations} evaluations on {images} images",
            search.evaluations * one_evaluation,
        ),
        StageEstimate(
            "verification",
            f"{models} measured{where} and tested",
            models_seconds(job, places, one_measurement)
            + places * mean / speed * record["splits"]["test"]["images"],
        ),
    ]
    if finetune:
        work = f"{places} models, {job.finetune.epochs:g} epochs each"
        stages.insert(3, StageEstimate("fine-tuning", work, finetune))
    elif job.inherits_only():
        work = "none: the front keeps inherited weights (a budget, or finetune.epochs, trains it)"
        stages.insert(3, StageEstimate("winners", work, 0.0))
    if job.budget is not None:
        focus = focus_archs(training, space)
        cpu = job.budget.cpu_minutes is not None
        times = per_step(
            training, space, task, batches, seed=job.seed, focus=focus, cpu=cpu, trained=trained
        )
        stages = _divided(
            job,
            measuring=round_seconds(job, one_measurement),
            step_seconds=times,
            epoch_steps=len(batches),
            winner_step_s=FORWARD_TO_TRAINING * FAKE_QUANTISER_FACTOR * mean / speed
            * job.finetune.batch_size,
            winner_epoch_steps=len(splits.training_batches(job.finetune.batch_size, seed=0)),
            question_s=space.plan(space.largest()).macs / speed * job.finetune.batch_size,
            trained=trained,
            images=len(splits.train),
            fronts=fronts,
            works={stage.name: stage.work for stage in stages},
        )  # fmt: skip
    names = ["manifest.json", "front.csv", "report.html", "models/"]
    return Estimate(
        space=space.name,
        cardinality=space.cardinality(),
        evaluations=search.evaluations,
        measurements=sampled + verified,
        stages=stages,
        files=[folder / name for name in names],
        total=_total(job),
        warnings=[
            *splits.warnings(
                told_by_class=task.metric_name == "accuracy" and splits.targets == "classes"
            ),
            *seen,
            *emulated_precision(job.supernet, "cpu"),
            *([] if left_out is None else [left_out]),
            *budgets_out_of_reach(job, space, pool),
        ],
    )


def _timed_steps() -> Callable[..., tuple[float, float]]:
    from nas.stages.step_time import step_seconds

    return step_seconds


def _total(job: Job) -> str:
    if job.budget is None:
        return "estimated time"
    return "budget of processor time" if job.budget.cpu_minutes is not None else "budget"


def _divided(
    job: Job,
    *,
    measuring: float,
    step_seconds: tuple[float, float],
    epoch_steps: int,
    winner_step_s: float,
    winner_epoch_steps: int,
    question_s: float,
    trained: bool,
    images: int,
    fronts: int,
    works: Mapping[str, str],
) -> list[StageEstimate]:
    """Return how a budget is divided, and what that means in steps and epochs on this machine."""
    assert job.budget is not None
    seconds = 60.0 * float(job.budget.cpu_minutes or job.budget.minutes or 0.0)
    division = divide(seconds, job.budget, measuring=measuring)
    teacher = 0.0 if trained else job.budget.teacher
    plan = plan_training(division.supernet, teacher, step_seconds)
    first = round(plan["warmup"] * plan["steps"])
    text = f"{plan['steps'] - first:.0f} steps of all sizes, {job.supernet.batch_size} images each"
    if first:
        text = f"the largest network {first} steps ({first / epoch_steps:.1f} epochs), then {text}"
    stages = [
        StageEstimate("supernet", text, division.supernet),
        StageEstimate(
            "search", f"{works['latency']}, then at most {works['search']}", division.search
        ),
    ]
    if job.finetune.epochs is None:
        lanes, teaches = winner_lanes(job), teaching(job, trained=trained)
        time_s = lanes * division.winners
        share = share_winners(
            job,
            time_s,
            step_s=winner_step_s,
            question_s=question_s if teaches != "nobody" else 0.0,
            epoch_steps=winner_epoch_steps,
            images=images,
            fronts=fronts,
        )
        kept, begun = (
            min(fronts * each, job.search.evaluations) for each in (share.places, share.begun)
        )
        # Each worker asks a teacher of its own.
        asked_s = winner_workers(job) * share.teacher_s
        if teaches == "all":
            time_s = max(0.0, time_s - asked_s)
        each = time_s / (FIRST_RUNG * begun + (1 - FIRST_RUNG) * kept)
        passes = each / winner_step_s / winner_epoch_steps
        text = (
            f"{begun} architectures {FIRST_RUNG * each:.0f} s each, of which {kept} go on to "
            f"{each:.0f} s: about {passes:.0f} epochs of a middling one, more of a small one"
        )
        if teaches == "those behind it":
            text += (
                f"; where the largest network teaches those behind it, {asked_s:.0f} s less in all"
            )
        if lanes > 1:
            text += f"; {lanes} at once"
        elif (
            job.budget.minutes is not None
            and job.accelerator != "cuda"
            and (cores := len(allowed_cores())) > 1
        ):
            text += f"; with executor: processes, {cores} at once"
        stages.append(StageEstimate("winners", text, division.winners))
    stages.append(StageEstimate("verification", works["verification"], division.verification))
    return stages


def measure_throughput(image_size: int) -> float:
    """Return forward multiply-accumulates a second of a small MBConv-like convolution here.

    Timed for about a second on one thread, because other load spoils a timing of several far
    more than it slows a long run; each further thread is counted as ``THREAD_GAIN``.
    """
    import torch
    from torch import nn

    side = max(1, image_size // 2)
    layers = nn.Sequential(
        nn.Conv2d(24, 72, 1, bias=False),
        nn.BatchNorm2d(72),
        nn.ReLU(),
        nn.Conv2d(72, 72, 3, padding=1, groups=72, bias=False),
        nn.BatchNorm2d(72),
        nn.ReLU(),
        nn.Conv2d(72, 24, 1, bias=False),
        nn.BatchNorm2d(24),
    ).to(memory_format=torch.channels_last)
    batch = max(1, min(64, 4_000_000 // (72 * side * side)))
    images = torch.zeros(batch, 24, side, side).to(memory_format=torch.channels_last)
    macs = batch * side * side * (24 * 72 + 72 * 9 + 72 * 24)
    best = float("inf")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            deadline = time.monotonic() + 0.7
            layers(images)
            # At least once, however busy the machine is.
            while best == float("inf") or time.monotonic() < deadline:
                start = time.perf_counter()
                layers(images)
                # A coarse clock may show no time at all.
                best = min(best, max(time.perf_counter() - start, 1e-9))
    finally:
        torch.set_num_threads(threads)
    return macs / best * (1.0 + THREAD_GAIN * (threads - 1))


def _mean_macs(space: PlannedSpace) -> float:
    genes = space.sample_genes(derive_rng(0, "estimate"), 256)
    return float(space.costs(genes)["macs"].mean())


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
