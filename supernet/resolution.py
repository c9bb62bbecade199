"""Images at an architecture's resolution."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def resize_images(x: Tensor, size: int) -> Tensor:
    """Scale ``x`` (batch, channels, height, width) to ``size`` x ``size`` pixels.

    Bilinear with anti-aliasing, which is what image libraries do when they shrink; a
    deployed model expects its host to do the same.
    """
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
