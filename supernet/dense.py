"""How tensors run through the ends of networks that answer for every place of an image.

``x`` is ``(current, *kept)``: the current feature map and those that ``fork`` blocks kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces.dense_flows import MOST_LAYERS
from supernet.dataflow import Operation


def fork(x: tuple[Tensor, ...], ops: Mapping[str, Operation], residual: bool) -> tuple[Tensor, ...]:
    """Keep the current map for later: ``(current, *kept)`` -> ``(current, *kept, current)``.

    Tensors are (batch, channels, height, width).
    """
    return (*x, x[0])


def detect(x: tuple[Tensor, ...], ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Anchor-free detection heads on one or two scales (FCOS, Tian et al., ICCV 2019, section 3).

    The coarse map gets the width of the head; where there is a fine level, it is enlarged and
    added to the kept map (FPN, Lin et al., CVPR 2017, section 3). Each level has a tower of
    depthwise separable convolutions and predicts for each of its cells.

    Returns:
        (batch, cells, outputs): cells of the fine level row by row, then those of the coarse one.
    """
    current, *kept = x
    current = ops["top_out"](ops["top"](current))
    levels = []
    if "lateral" in ops:
        side = ops["side"](ops["lateral"](kept[0]))
        large = F.interpolate(current, size=side.shape[-2:], mode="nearest")
        levels.append(_cells(ops["joined"](large + side), "fine", ops))
    if "coarse_predict" in ops:
        levels.append(_cells(current, "coarse", ops))
    return levels[0] if len(levels) == 1 else torch.cat(levels, dim=1)


def _cells(x: Tensor, level: str, ops: Mapping[str, Operation]) -> Tensor:
    for i in range(1, MOST_LAYERS + 1):
        if f"{level}_depthwise{i}" in ops:
            x = ops[f"{level}_pointwise{i}"](ops[f"{level}_depthwise{i}"](x))
    return ops[f"{level}_predict"](x.flatten(2).transpose(1, 2))


def decode(x: tuple[Tensor, ...], ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """A light decoder: enlarge, add what was kept, convolve; then a class for every place.

    The top-down path of FPN (Lin et al., CVPR 2017) with depthwise separable convolutions, as
    many steps as there are kept maps.

    Returns:
        (batch, classes, height, width) of the last map that was joined.
    """
    current, *kept = x
    current = ops["top_out"](ops["top"](current))
    for i in range(1, len(kept) + 1):
        side = ops[f"side{i}"](ops[f"lateral{i}"](kept[-i]))
        large = F.interpolate(current, size=side.shape[-2:], mode="nearest")
        joined = ops[f"joined{i}"](large + side)
        current = ops[f"out{i}"](ops[f"pointwise{i}"](ops[f"depthwise{i}"](joined)))
    return ops["output"](ops["classify"](current))
