"""The metric ``worst_class_loss``: what bits cost the class that they cost most.

Quantisation hurts classes unequally, and a mean over all of them hides it (as pruning does: Hooker
et al., What do compressed deep neural networks forget?, 2019; Paganini, Prune responsibly, 2020).
It is the largest fall of the accuracy of a class from the float network of the same architecture
and weights to the quantised one. Below 0 where every class gains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.job.schema import Job

CLASS_LOSS = "worst_class_loss"
"""Name of the metric."""


def largest_class_loss(values: Sequence[float], reference: Sequence[float]) -> float:
    """Return the largest loss of a class, as a share; NaN where no class has images.

    Args:
        values: accuracy of each class, NaN without images.
        reference: of the float network, likewise.
    """
    losses = [
        before - after
        for before, after in zip(reference, values, strict=True)
        if math.isfinite(before) and math.isfinite(after)
    ]
    return max(losses, default=math.nan)


def asks_class_loss(job: Job) -> bool:
    """Return whether a job trades the metric off or bounds it, so that floats are evaluated too."""
    metrics = [goal.metric for goal in job.objectives()]
    metrics += [bound.metric for bound in job.constraints()]
    return any(metric.name == CLASS_LOSS for metric in metrics)
