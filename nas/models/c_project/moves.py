"""Cutting, padding and repeating images as three lists: which channel, row and column they take."""

from __future__ import annotations

from typing import Any

import numpy as np

from devices.lowbit.floats import rearranged
from search_spaces.errors import InputError

PICKS = ("slice", "pad", "resize", "shuffle")
"""Operations whose axes do not depend on each other."""

ZERO = 0xFFFF
"""Stands for a value that no place of the input gives."""


def picked(node: dict[str, Any], shape: tuple[int, int, int]) -> list[np.ndarray]:
    """Return the channels, rows and columns that an operation takes, uint16 each.

    Args:
        node: of a packed model, one of ``PICKS``.
        shape: (channels, height, width) of its input.

    Raises:
        InputError: an axis is too long, or the operation is one of more than one image.
    """
    if max(shape) >= ZERO:
        raise InputError(f"{node['output']}: an axis of {max(shape)}; the C kernels know {ZERO}")
    found = []
    for axis in range(3):
        column = [-1 if i == axis else 1 for i in range(3)]
        places = np.arange(shape[axis], dtype=np.int32).reshape(column)
        moved = rearranged(node, np.broadcast_to(places, shape)[None], ZERO)
        if len(moved) != 1 or moved.ndim != 4:
            raise InputError(f"{node['output']}: the C kernels move single images only")
        others = tuple(i for i in range(3) if i != axis)
        # Another axis that is padded hides the place, and hides it everywhere only at its own.
        found.append(moved[0].min(others).astype(np.uint16))
    return found
