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
_TASKS = {
    "classes": "image_classification, signal_classification, audio_classification or an embedding",
    "labels": "multi_label_classification",
    "values": "image_regression or signal_regression",
    "boxes": "object_detection",
    "masks": "semantic_segmentation",
    "tokens": "language_modelling",
    "pairs": "sequence_to_sequence",
}


def expect(splits: DataSplits, kind: str, task: Task) -> DataSplits:
    """Return ``splits`` if their targets are of ``kind``: ``classes``, ``labels``, ``values``,
    ``boxes``, ``masks``, ``tokens`` or ``pairs``.

    Raises:
        InputError: they are of another; the message names the tasks that suit them.
    """
    if splits.targets != kind:
        raise InputError(
            f"{splits.origin} holds {_WORDS[splits.targets]}, and {type(task).__name__} needs "
            f"{_WORDS[kind]}; use task: {_TASKS[splits.targets]}"
        )
    return splits
