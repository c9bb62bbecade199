"""Images, and signals of height 1, at an architecture's resolution."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def resize_images(x: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Scale ``x`` (batch, channels, height, width) to a height and width, or to a square's side.

    The shape stays what it is: images of another height than width keep their proportions, and
    signals (batch, channels, samples) have one length.
    Bilinear with anti-aliasing, which is what image libraries do when they shrink; a
    deployed model expects its host to do the same.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if tuple(x.shape[-2:]) == sides:
        return x
    return F.interpolate(x, sides, mode="bilinear", antialias=True, align_corners=False)
