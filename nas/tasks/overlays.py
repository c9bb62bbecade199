"""What the report draws over an example: boxes, a mask, a line of words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class DrawnBox:
    """A box over a picture.

    Attributes:
        corners: left, top, right, bottom as shares of the picture's sides.
        kind: number of its class, for the colour.
        label: beside it; empty for none.
        wanted: whether it is of the annotations, drawn dashed, and not found.
    """

    corners: tuple[float, float, float, float]
    kind: int
    label: str = ""
    wanted: bool = False


@dataclass(frozen=True)
class Drawing:
    """What is drawn over one example.

    Attributes:
        boxes: over the picture.
        mask: classes (height, width) uint8 over the picture, of which 0 is clear; None for none.
        caption: a line under it, as plain text.
    """

    boxes: tuple[DrawnBox, ...] = field(default=())
    mask: np.ndarray | None = None
    caption: str = ""


def box_drawing(found: np.ndarray, truth: np.ndarray, classes: tuple[str, ...]) -> Drawing:
    """Return found boxes with class and score over wanted ones.

    Args:
        found: (n, 6): class, score, left, top, right, bottom as shares.
        truth: (m, 6): class (below 0 for none), corners, and whether it is ignored.
        classes: their names.
    """
    wanted = [
        DrawnBox((row[1], row[2], row[3], row[4]), int(row[0]), wanted=True)
        for row in truth.tolist()
        if row[0] >= 0 and not row[5]
    ]
    told = [
        DrawnBox((a, b, c, d), int(kind), f"{classes[int(kind)]} {100 * score:.0f} %")
        for kind, score, a, b, c, d in found.tolist()
    ]
    return Drawing((*wanted, *told), caption=f"{len(told)} found, {len(wanted)} there")
