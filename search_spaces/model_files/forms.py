"""What the packer asks of a node: whether operations on codes are all that it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from search_spaces.model_files.graph import Grid, Node


def plain_pool(node: Node) -> bool:
    """Whether a pool is what integer kernels do: no gaps, no rounding up, pads as numbers."""
    a = node.attributes
    gaps = any(step != 1 for step in a.get("dilations", ()))
    if gaps or a.get("ceil_mode") or a.get("auto_pad", "NOTSET") != "NOTSET":
        return False
    # An average over fewer values at the border has no one factor.
    return node.op == "MaxPool" or bool(a.get("count_include_pad")) or not any(a.get("pads", ()))


def repeats(node: Node, constants: Mapping[str, np.ndarray]) -> list[int] | None:
    """Return how often a Resize of images repeats each row and column; None where it does else."""
    attributes = node.attributes
    form = (
        attributes.get("mode", "nearest"),
        attributes.get("coordinate_transformation_mode", "half_pixel"),
        attributes.get("nearest_mode", "round_prefer_floor"),
    )
    scales = constants.get(node.input(2))
    if form != ("nearest", "asymmetric", "floor") or scales is None or scales.shape != (4,):
        return None
    factors = scales.tolist()
    if factors[:2] != [1, 1] or any(f < 1 or f != int(f) for f in factors):
        return None
    return [int(f) for f in factors[2:]]


def rounded_away(
    clip: Node, grid: Grid, cut: Node | None, constants: Mapping[str, np.ndarray]
) -> bool:
    """Whether a Clip before a quantiser changes no code, as a ReLU6 before codes of 0 to 6.

    Args:
        clip: of floats.
        grid: of the quantiser, of a whole tensor.
        cut: the Clip of its codes to fewer bits, where one follows.
        constants: of the graph.
    """
    if grid.scale.size != 1 or grid.kind not in ("uint8", "uint16"):
        return False
    top = np.iinfo(grid.kind).max
    if cut is not None:
        if cut.input(2) not in constants:
            return False
        top = int(constants[cut.input(2)].item())
    ends = []
    for place, open_end in ((1, -np.inf), (2, np.inf)):
        name = clip.input(place)
        if name and name not in constants:
            return False
        ends.append(float(constants[name].item()) if name else open_end)
    low, high = (np.rint(np.float32(end) / grid.scale.item()) + grid.zero.item() for end in ends)
    return bool(low <= 0 and high >= top)
