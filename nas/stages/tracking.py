"""Watching a training: TensorBoard logs, and validation that notices a collapse."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import MissingExtraError

if TYPE_CHECKING:
    from nas.stages.opened_job import RunContext
    from search_spaces.plan import NetworkPlan
    from supernet.network import Supernet

_IMAGES = 1000


def require_tensorboard() -> None:
    """Find out before any work whether TensorBoard can be written.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", "track")


@contextmanager
def tensorboard_log(folder: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that writes the record of a training step to TensorBoard.

    Args:
        folder: of the event files; None writes nothing.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    if folder is None:
        yield lambda record: None
        return
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def write(record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if name != "step":
                writer.add_scalar(f"supernet/{name}", value, record["step"])

    try:
        yield write
    finally:
        writer.close()


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
