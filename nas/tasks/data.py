"""What a task asks of its data, said before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.data.splits import DataSplits
    from nas.tasks.base import Task

_WORDS = {
    "classes": "one class an example",
    "labels": "any number of labels an example (0 or 1 each)",
    "values": "numbers to predict",
    "boxes": "boxes of objects",
    "masks": "a mask of classes an image",
    "tokens": "tokens of a text",
    "pairs": "pairs of sequences",
}
TASKS_FOR: dict[str, tuple[str, ...]] = {
    "classes": (
        "image_classification", "signal_classification", "audio_classification",
        "anomaly_detection", "image_embedding", "signal_embedding", "audio_embedding",
    ),
    "labels": ("multi_label_classification",),
    "values": ("image_regression", "signal_regression"),
    "boxes": ("object_detection",),
    "masks": ("semantic_segmentation",),
    "tokens": ("language_modelling",),
    "pairs": ("sequence_to_sequence",),
}  # fmt: skip
"""Kinds of targets -> the tasks of this project that learn from them."""


CLASSLESS = ("values", "tokens", "pairs")
"""Kinds of targets in which no class could be rare."""


def each_of(targets: str | None) -> str:
    """Return what a metric is given for one by one: ``class``, ``label`` or ``output``."""
    return {"labels": "label", "values": "output"}.get(targets or "", "class")


def kind_for(task: str) -> str | None:
    """Return the kind of targets that ``task`` learns from; None for a task of a plug-in."""
    return next((kind for kind, tasks in TASKS_FOR.items() if task in tasks), None)


def wrong_targets(origin: str, found: str, wanted: str, task: str) -> InputError:
    """Return the error of data at ``origin`` whose targets are ``found`` and not ``wanted``."""
    *others, last = TASKS_FOR[found]
    suits = f"{', '.join(others)} or {last}" if others else last
    return InputError(
        f"{origin} holds {_WORDS[found]}, and {task} needs {_WORDS[wanted]}; use task: {suits}"
    )


def expect(splits: DataSplits, kind: str, task: Task) -> DataSplits:
    """Return ``splits`` if their targets are of ``kind``: ``classes``, ``labels``, ``values``,
    ``boxes``, ``masks``, ``tokens`` or ``pairs``.

    Raises:
        InputError: they are of another; the message names the tasks that suit them.
    """
    if splits.targets != kind:
        raise wrong_targets(splits.origin, splits.targets, kind, type(task).__name__)
    return splits
