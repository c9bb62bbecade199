"""Weights that least squares give an architecture, where they are better than inherited ones.

See :mod:`supernet.training.reconstruct`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nas.stages.evaluator import Evaluator
from search_spaces.space import Arch

if TYPE_CHECKING:
    from supernet.network import Supernet

IMAGES, FEWEST = 256, 32
"""Calibration images that layers are fitted to: all where there is time, and the fewest."""


def reconstructed(arch: Arch, evaluator: Evaluator, *, seconds: float | None = None) -> Supernet:
    """Return the weights that least squares give ``arch``, or the shared ones if better.

    Args:
        arch: of the largest resolution; others keep the shared weights, since their layers see
            other maps than those of the largest.
        evaluator: of the shared weights.
        seconds: that it may take; so many images are used, and with too little time for the fewest
            the shared weights stay. None takes what it takes.
    """
    from supernet.training.reconstruct import reconstruct

    supernet = evaluator.supernet
    plan, largest = supernet.plan(arch), supernet.plan(supernet.space.largest())
    if plan.input_size != largest.input_size:
        return supernet
    batches = [
        images
        for images, _ in evaluator.batches(
            "calibration", evaluator.splits.calibration, plan.input_size
        )
    ]
    count = IMAGES
    if seconds is not None:
        begin = time.process_time()
        supernet.statistics(plan, [batches[0][:FEWEST]])
        each = (time.process_time() - begin) / len(batches[0][:FEWEST])
        # Each layer is fitted to what the layers before it give by then.
        count = min(IMAGES, int(seconds / (each * len(list(plan.layers())))))
        if count < FEWEST:
            return supernet
    found = reconstruct(supernet, plan, batches, images=count)
    before, after = without_and_with(found, arch, evaluator)
    return found if after > before else supernet


def without_and_with(own: Supernet, arch: Arch, evaluator: Evaluator) -> tuple[float, float]:
    """Return the metric of ``arch`` as it inherits weights and with its own, larger is better."""
    sign = 1 if evaluator.task.higher_is_better else -1
    inherited = evaluator.accuracy(evaluator.network(arch))
    return sign * inherited, sign * evaluator.accuracy(evaluator.network(arch, own=own))
