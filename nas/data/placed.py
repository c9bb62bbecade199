"""Targets that have places in their images: boxes and masks, moved as their images are moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.data.annotations.arrays import IGNORE, NOTHING
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.data.images import Crops

LEAST_VISIBLE = 0.3
"""A box of which a crop leaves less is neither to be found nor wrong to be found."""


def checked(targets: str, given: np.ndarray, classes: int, origin: str) -> Tensor:
    """Return targets of a source as a tensor: boxes float32, masks uint8.

    Raises:
        InputError: they are of another shape, or name a class that there is not.
    """
    kind = np.uint8 if targets == "masks" else np.float32
    found = torch.from_numpy(np.ascontiguousarray(given, dtype=kind))
    if found.ndim != 3 or (targets == "boxes" and found.shape[2] != 6):
        raise InputError(f"{origin}: {targets} of shape {tuple(found.shape)}")
    used = found[:, :, 0] if targets == "boxes" else found[found != IGNORE]
    if used.numel() and int(used.max()) >= classes:
        raise InputError(
            f"{origin}: {targets} name class {int(used.max())}, and there are {classes}"
        )
    return found


def presence(targets: str, labels: Tensor, classes: int) -> Tensor:
    """Return which classes each example has: (n, classes) bool.

    Args:
        targets: ``boxes`` or ``masks``.
        labels: (n, most, 6), or (n, height, width).
        classes: how many there are.
    """
    if targets == "boxes":
        return (labels[:, :, 0, None] == torch.arange(classes)).any(1)
    found = torch.zeros(len(labels), classes, dtype=torch.bool)
    for k in range(classes):
        found[:, k] = (labels == k).flatten(1).any(1)
    return found


def cut(pixels: Tensor, crops: Crops, *, nearest: bool = False) -> Tensor:
    """Return images (n, channels, height, width) cut by their crops, at the same size.

    Args:
        pixels: uint8 or float32.
        crops: one an image.
        nearest: take the nearest pixel, as masks need it, in place of a mean of several.
    """
    height, width = pixels.shape[-2:]
    boxes = torch.from_numpy(crops.boxes(width, height)).float()
    # Pixel centres of the result, as coordinates in the source: (n, side).
    columns = boxes[:, :1] + (torch.arange(width) + 0.5) * boxes[:, 2:3] / width
    rows = boxes[:, 1:2] + (torch.arange(height) + 0.5) * boxes[:, 3:4] / height
    grid = torch.stack(
        [
            (2 * columns / width - 1)[:, None, :].expand(-1, height, -1),
            (2 * rows / height - 1)[:, :, None].expand(-1, -1, width),
        ],
        dim=-1,
    )
    mode = "nearest" if nearest else "bilinear"
    out = F.grid_sample(pixels.float(), grid, mode=mode, padding_mode="border", align_corners=False)
    return out if pixels.is_floating_point() else out.round_().to(torch.uint8)


def cropped(targets: str, labels: Tensor, crops: Crops, size: tuple[int, int]) -> Tensor:
    """Return targets for images that were cut; ``size`` is their height and width in pixels."""
    if targets == "masks":
        return cut(labels[:, None], crops, nearest=True)[:, 0]
    height, width = size
    left, top, w, h = torch.from_numpy(crops.boxes(width, height)).float().T
    begin = torch.stack([left / width, top / height], 1)[:, None, :]
    span = torch.stack([w / width, h / height], 1)[:, None, :]
    return _kept(labels, (labels[..., 1:3] - begin) / span, (labels[..., 3:5] - begin) / span)


def windows(
    images: Tensor, size: tuple[int, int], *, mirrored: Tensor | None, offsets: Tensor | None
) -> Tensor:
    """Return a window of each image, (n, channels, height, width), its edge repeated beyond it.

    Args:
        images: (n, channels, rows, columns).
        size: height and width of the windows.
        mirrored: (n,) bool, which windows are mirrored; None for no one.
        offsets: (2, n, 1) rows and columns of their beginnings; None for 0.
    """
    n, (height, width) = len(images), size
    mirror = [False] * n if mirrored is None else mirrored.tolist()
    top, left = np.zeros((2, n), np.int64) if offsets is None else offsets[..., 0].numpy()
    whole, above, before = _widened(images.numpy(), top, left, size)
    cut = np.empty((n, images.shape[1], height, width), whole.dtype)
    places = zip((top + above).tolist(), (left + before).tolist(), mirror, strict=True)
    # Blocks of memory, one image after another: gathering pixel by pixel takes eight times as
    # long, which for a small network is half of what training on the batch takes.
    for i, (y, x, flip) in enumerate(places):
        window = whole[i, :, y : y + height, x : x + width]
        cut[i] = window[..., ::-1] if flip else window
    return torch.from_numpy(cut)


def _widened(
    images: np.ndarray, top: np.ndarray, left: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, int, int]:
    """Return images with their edges repeated as far as windows reach, and by how much before.

    Args:
        images: (n, channels, rows, columns).
        top, left: (n,) where windows begin.
        size: height and width of the windows.

    Returns:
        the images, and how many rows and columns they have before those of ``images``.
    """
    (rows, columns), (height, width) = images.shape[2:], size
    above, below = max(0, -int(top.min())), max(0, int(top.max()) + height - rows)
    before, after = max(0, -int(left.min())), max(0, int(left.max()) + width - columns)
    if not (above or below or before or after):
        return images, 0, 0
    sides = above + rows + below, before + columns + after
    wide = np.empty((*images.shape[:2], *sides), images.dtype)
    middle = wide[:, :, above : above + rows]
    middle[..., before : before + columns] = images
    middle[..., :before] = images[..., :1]
    middle[..., before + columns :] = images[..., -1:]
    wide[:, :, :above] = middle[:, :, :1]
    wide[:, :, above + rows :] = middle[:, :, -1:]
    return wide, above, before


def moved(
    targets: str,
    labels: Tensor,
    *,
    mirrored: Tensor | None,
    offsets: Tensor | None,
    pad: int,
    size: tuple[int, int],
) -> Tensor:
    """Return targets for images that were mirrored and shifted.

    Args:
        targets: ``boxes`` or ``masks``.
        labels: (n, most, 6), or (n, height, width).
        mirrored: (n,) bool, or None for no image.
        offsets: (2, n, 1) rows and columns from 0 to twice ``pad``, or None for no shift.
        pad: pixels around the image.
        size: height and width in pixels.
    """
    height, width = size
    if targets == "masks":
        padded = labels[:, None]
        if offsets is not None:
            padded = F.pad(padded, (pad,) * 4, value=IGNORE)
        return windows(padded, size, mirrored=mirrored, offsets=offsets)[:, 0]
    first, last = labels[..., 1:3], labels[..., 3:5]
    if offsets is not None:
        # As in the image: columns of the source are counted from the far side of mirrored ones.
        down, right = (offsets[i] - pad for i in (0, 1))
        by = torch.stack([right / width, down / height], -1)
        first, last = first - by, last - by
    if mirrored is not None:
        x1, x2 = 1 - last[..., 0], 1 - first[..., 0]
        flip = mirrored[:, None]
        first = torch.stack([torch.where(flip, x1, first[..., 0]), first[..., 1]], -1)
        last = torch.stack([torch.where(flip, x2, last[..., 0]), last[..., 1]], -1)
    return _kept(labels, first, last)


def _kept(labels: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Return boxes cut off at the image's edges; those that are gone or hardly there left out."""
    whole = (last - first).clamp(min=1e-9).prod(-1)
    first, last = first.clamp(0, 1), last.clamp(0, 1)
    seen = (last - first).clamp(min=0).prod(-1) / whole
    there = (labels[..., 0] >= 0) & (seen > 0)
    ignored = torch.where(seen < LEAST_VISIBLE, torch.ones_like(seen), labels[..., 5])
    kinds = torch.where(there, labels[..., 0], torch.full_like(seen, NOTHING))
    out = torch.cat([kinds[..., None], first, last, ignored[..., None]], -1)
    return torch.where(there[..., None], out, labels.new_tensor([NOTHING, 0, 0, 0, 0, 0]))
