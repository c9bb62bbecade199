"""What a C project is lowered to: tensors in an arena, calls of kernels, sizes of layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search_spaces.errors import InputError


@dataclass(frozen=True)
class Tensor:
    """A tensor in the arena.

    Attributes:
        storage: number of the memory that it occupies.
        shape: (channels, height, width); stored channels last.
        grid: scale, zero point and bits of codes; ``None`` for float32.
        table: (256,) uint8 through which the stored codes are read, or ``None``.
    """

    storage: int
    shape: tuple[int, int, int]
    grid: dict[str, Any] | None
    table: np.ndarray | None = None

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def stored(self) -> tuple[int, int, int, int]:
        """Shape in memory, of one image: (1, height, width, channels)."""
        channels, height, width = self.shape
        return 1, height, width, channels


@dataclass(frozen=True)
class Operation:
    """One call of a kernel.

    Attributes:
        kind: ``conv``, ``depthwise``, ``sum``, ``product``, ``gate``, ``resample``, ``mean``,
            ``average_pool``, ``max_pool``, ``table``, ``function``, ``planar``, ``copy``, ``pick``,
            ``spread``, ``norm`` or ``values``.
        name: of the node.
        inputs: what it reads.
        output: what it writes.
        values: parameters of the kernel, by kind.
    """

    kind: str
    name: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """Operations in order, and the memory they use.

    Attributes:
        operations: in order.
        sizes: bytes of each storage.
        lives: first and last operation of each storage; the input's first is -1, the output's
            last the number of operations.
        input, output: tensors; the input holds codes.
    """

    operations: tuple[Operation, ...]
    sizes: tuple[int, ...]
    lives: tuple[tuple[int, int], ...]
    input: Tensor
    output: Tensor

    @property
    def peak_bytes(self) -> int:
        """The most bytes that live at once: no arena can be smaller."""
        return max(
            sum(s for s, (a, b) in zip(self.sizes, self.lives, strict=True) if a <= t <= b)
            for t in range(-1, len(self.operations) + 1)
        )


def image_shape(shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    """Return (channels, height, width) of a shape without its batch; a signal has height 1.

    Raises:
        InputError: it has more axes than an image.
    """
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return shape[0], 1, shape[1]
    if len(shape) == 1:
        return shape[0], 1, 1
    raise InputError(f"{name} has the shape {shape}; the C kernels know images and signals")


def in_two_axes(values: list[int], fill: int) -> tuple[int, int]:
    """Return numbers of (height, width); those of a signal along the width, and ``fill``."""
    return (values[0], values[1]) if len(values) == 2 else (fill, values[0])


def layer_geometry(
    node: dict[str, Any], shape: tuple[int, ...], x: Tensor, name: str
) -> dict[str, Any]:
    """Return kernel, strides, pads, dilations, groups and output size of a layer.

    Args:
        node: ``conv`` or ``linear``.
        shape: of its weights.
        x: its input.
        name: of the layer, for errors.

    Raises:
        InputError: a linear layer over pixels.
    """
    if node["op"] == "linear":
        if x.shape[1:] != (1, 1) or x.shape[0] != shape[1]:
            raise InputError(f"{name}: a linear layer over {x.shape}; the C kernels have none")
        return {
            "kernel": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1),
            "groups": 1, "size": (1, 1),
        }  # fmt: skip
    kernel, strides = in_two_axes(node["kernel"], 1), in_two_axes(node["strides"], 1)
    dilations = in_two_axes(node["dilations"], 1)
    pads = (
        tuple(node["pads"]) if len(node["pads"]) == 4 else (0, node["pads"][0], 0, node["pads"][1])
    )
    size = tuple(
        (n + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i, n in enumerate(x.shape[1:])
    )
    return {
        "kernel": kernel, "strides": strides, "pads": pads, "dilations": dilations,
        "groups": node["groups"], "size": size,
    }  # fmt: skip
