"""How long a training step takes here, from a few real steps on weights that are thrown away."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING

import numpy as np

from search_spaces.planned import PlannedSpace
from search_spaces.space import Arch

if TYPE_CHECKING:
    from nas.data.splits import Batches
    from nas.job.sections.supernet import SupernetConfig
    from nas.tasks import Task

_STEPS = 5
_MANY = 24
_LONG = 10**6


def step_seconds(
    config: SupernetConfig,
    space: PlannedSpace,
    task: Task,
    batches: Batches,
    *,
    seed: int,
    device: str = "cpu",
    focus: Sequence[Arch] = (),
    cpu: bool = False,
    at_most_s: float = math.inf,
    trained: bool = False,
) -> tuple[float, float]:
    """Return the seconds of a warm-up step and of a step with every subnet and bit-width.

    Medians of a few steps each, or means where steps differ in what they train; the first is not
    counted. ``cpu`` counts processor time, of this process alone: that of a tree of processes
    comes in hundredths, which are more than a step of a small network takes. After ``at_most_s``
    seconds of a kind of step a few of them must do. A network that comes ``trained`` has another
    optimiser where the job names none.
    """
    from nas.stages.build_supernet import make_schedule, make_supernet, optimizer_of, precision_of
    from supernet.training.subnets import default_stages
    from supernet.training.train import Recipe, Trainer

    supernet = make_supernet(space, config)
    trainer = Trainer(
        supernet,
        sampler=make_schedule(
            supernet,
            config,
            default_stages(supernet.ranges, warmup=0.5),
            seed=seed,
            focus=focus,
        ),
        batches=batches,
        loss=task.loss,
        distillation_loss=task.distillation_loss,
        # A tiny rate: the weights must stay finite, nothing else is asked of them.
        recipe=Recipe(
            steps=_LONG,
            learning_rate=1e-6,
            distillation=bool(config.distillation),
            precision=precision_of(config, device),
            optimizer=optimizer_of(supernet, config, trained=trained),
        ),
        device=device,
    )
    now = time.process_time if cpu else time.monotonic
    found = []
    for begin in (0, _LONG - 2 * _MANY):
        trainer.step = begin
        # Subnets of all sizes alike take seconds of all sizes, of which a few say little.
        mixed = begin > 0 and config.schedule == "taught"
        count = _MANY if mixed else _STEPS
        seconds: list[float] = []
        for images, targets in chain.from_iterable(map(batches.epoch, repeat(0))):
            started = now()
            trainer.train_step(images, targets)
            seconds.append(now() - started)
            if len(seconds) > (_STEPS if sum(seconds) > at_most_s else count):
                break
        found.append(float(np.mean(seconds[1:]) if mixed else np.median(seconds[1:])))
    return found[0], found[1]
