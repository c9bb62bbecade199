"""Arrays of boxes and masks, without any framework; :mod:`nas.data.placed` moves them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NOTHING = -1.0
"""Class of a row that stands for no box."""

IGNORE = 255
"""Value of a mask's pixel that counts for nothing."""


def stack_boxes(each: Sequence[np.ndarray]) -> np.ndarray:
    """Return the boxes of n images as one array.

    Args:
        each: of every image (boxes, 6) float: class, left, top, right and bottom as shares of
            the image's sides, and 1 for a box that is neither to be found nor wrong to be found
            (crowds, difficult objects), else 0.

    Returns:
        (n, most, 6) float32; rows of class :data:`NOTHING` fill up. At least one row.
    """
    most = max([1, *(len(boxes) for boxes in each)])
    out = np.zeros((len(each), most, 6), np.float32)
    out[:, :, 0] = NOTHING
    for i, boxes in enumerate(each):
        out[i, : len(boxes)] = boxes
    return out
