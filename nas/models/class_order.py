"""Whether a trained network means by its outputs what the data mean by their classes.

A network whose classes have another order than the data's, or whose inputs were normalised
otherwise, answers wrongly without an error, and teaches others so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_CLEARLY = 0.2
"""Share of images by which another order of classes must be better to be believed."""

_NAMED = 12
"""Classes that a warning names."""


def better_than_chance(right: float, classes: int) -> bool:
    """Whether a share of right answers is what a trained network gives.

    Random weights may group images, and be right more often than by chance.
    """
    chance = 1.0 / max(2, classes)
    return right > chance + 0.4 * (1 - chance)


def doubt(
    who: str,
    network: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    names: Sequence[str],
) -> str | None:
    """Return in words why a trained network may mean other classes; None where it answers well.

    Args:
        who: what to call the network.
        network: images (batch, ...) -> outputs (batch, classes).
        batches: images, and their classes (batch,) int64.
        names: of the classes, in the order of the data.
    """
    from scipy.optimize import linear_sum_assignment

    counts = answers(network, batches, len(names))
    if counts is None or not counts.sum():
        return None
    right = float(np.trace(counts) / counts.sum())
    if better_than_chance(right, len(names)):
        return None
    # The order of classes in which most of its answers would be right (Kuhn, 1955).
    outputs, classes = linear_sum_assignment(-counts)
    permuted = float(counts[outputs, classes].sum() / counts.sum())
    if permuted > right + _CLEARLY:
        return (
            f"{who} answers {right:.2f} of the validation images rightly, and would "
            f"{permuted:.2f} if its outputs stood for the classes in another order than the "
            f"data's: {_listed([names[i] for i in classes])}. Name folders so that they sort in "
            "the order of its outputs"
        )
    return (
        f"{who} answers only {right:.2f} of the validation images rightly before any training; if "
        "you know it better, its inputs were normalised otherwise (data.normalisation), or its "
        f"outputs are other classes than the data's: {_listed(names)}"
    )


def answers(
    network: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], classes: int
) -> np.ndarray | None:
    """Return how often each output was largest for each class, (outputs, classes).

    None where outputs are not one for each class of an image.
    """
    import torch

    counts = np.zeros((classes, classes))
    with torch.inference_mode():
        for images, targets in batches:
            told = network(images)
            if targets.ndim != 1 or told.shape[1:] != (classes,):
                return None
            np.add.at(counts, (told.argmax(1).cpu().numpy(), targets.cpu().numpy()), 1)
    return counts


def _listed(names: Sequence[str]) -> str:
    more = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED} more"
    return ", ".join(names[:_NAMED]) + more
