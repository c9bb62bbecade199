"""Validation during training that notices a collapse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.stages.opened_job import RunContext
    from search_spaces.plan import NetworkPlan
    from supernet.network import Supernet

_IMAGES = 1000


def validation_of(context: RunContext) -> Callable[[Supernet, NetworkPlan], float] | None:
    """Return the metric of a subnet on a few validation images, for the guard against collapse.

    Batch norm is calibrated on the first calibration images. None for a task without classes,
    whose metric has no scale of its own to fall on.
    """
    task, splits = context.task, context.splits
    if not task.has_classes:
        return None

    def validate(supernet: Supernet, plan: NetworkPlan) -> float:
        from supernet.resolution import resize_images

        def batches(subset: Any) -> Iterator[Any]:
            for images, targets in splits.evaluation_batches(subset.first(_IMAGES)):
                resized = resize_images(images, plan.input_size)
                yield resized.to(context.accelerator), targets.to(context.accelerator)

        statistics = supernet.statistics(plan, (x for x, _ in batches(splits.calibration)))
        return task.evaluate(
            lambda x: supernet.evaluate(x, plan, statistics), batches(splits.validation)
        )

    return validate
