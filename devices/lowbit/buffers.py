"""Native buffers by the tensors of a packed model, and the steps that use them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from devices.lowbit.library import Native
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import PackedModel

Step = tuple[int, int] | Callable[[], None]
"""Native layers from one number to before another, or a call."""

_F = np.float32


@dataclass(frozen=True)
class Tensor:
    """A tensor in a native buffer.

    Attributes:
        buffer: its number.
        shape: (batch, channels, height, width), stored channels last; other ranks as stored.
        grid: scale, zero point and bits of codes; ``None`` for float32.
    """

    buffer: int
    shape: tuple[int, ...]
    grid: dict[str, Any] | None

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape in memory."""
        if len(self.shape) != 4:
            return self.shape
        batch, channels, height, width = self.shape
        return batch, height, width, channels


class Buffers:
    """Tensors of a model that lie in native buffers or in arrays, as steps are added.

    Args:
        model: whose weights are read while steps are added.
        native: gets the layers and buffers.
        batch: images of an inference.

    Attributes:
        grids: of the tensors that are codes.
        names: of the native layers, in order.
        float_operations: operations that run in floats, in NumPy.
        steps: in order of execution.
        input: float32 (batch, channels, height, width), to be filled before they run.
        others: further inputs, float32 (batch, ...), in their order.
        tensors: in native buffers, by name.
        arrays: elsewhere, by name.
        dequantized: floats -> the codes that they are.
    """

    def __init__(self, model: PackedModel, native: Native, *, batch: int) -> None:
        self.model, self.native, self.batch = model, native, batch
        self.grids = model.graph["grids"]
        self.names: list[str] = []
        self.float_operations: list[str] = []
        self.steps: list[Step] = []
        self.tensors: dict[str, Tensor] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.dequantized: dict[str, str] = {}
        self.input_shape = (batch, *model.graph["input"]["shape"])
        self.input_name = model.graph["input"]["name"]
        self.input_buffer = native.buffer(4 * math.prod(self.input_shape))
        self.input = native.array(self.input_buffer, self.input_shape, np.float32)
        self.arrays[self.input_name] = self.input
        self.others = []
        for entry in model.graph.get("others", ()):
            shape = (batch, *entry["shape"])
            given = self.new(entry["name"], shape, None)
            self.others.append(native.array(given.buffer, shape, np.float32))

    def note(self, name: str, first: int) -> None:
        """Note that layers from ``first`` on were added under ``name``."""
        last = self.native.layers
        self.names += [name] * (last - first)
        step = self.steps[-1] if self.steps else None
        if isinstance(step, tuple) and step[1] == first:
            self.steps[-1] = (step[0], last)
        else:
            self.steps.append((first, last))

    def new(self, name: str, shape: tuple[int, ...], grid: dict[str, Any] | None) -> Tensor:
        """Add a native buffer for the tensor ``name``: codes where it has a grid, else floats."""
        size = math.prod(shape) * (1 if grid else 4)
        tensor = Tensor(self.native.buffer(size), tuple(shape), grid)
        self.tensors[name] = tensor
        return tensor

    def codes(self, name: str) -> Tensor:
        """Return a tensor of codes."""
        tensor = self.tensors.get(name)
        if tensor is None or tensor.grid is None:
            raise InputError(f"{name} is used as codes before it is computed")
        return tensor

    def array(self, name: str) -> np.ndarray:
        """Return a tensor as floats, (batch, channels, height, width)."""
        if name in self.arrays and name not in self.tensors:
            return self.arrays[name]
        tensor = self.tensors[self.dequantized.get(name, name)]
        dtype = np.uint8 if tensor.grid else np.float32
        array = self.native.array(tensor.buffer, tensor.stored, dtype)
        array = array.transpose(0, 3, 1, 2) if array.ndim == 4 else array
        if tensor.grid is None:
            return array
        centred = array.astype(np.int32) - tensor.grid["zero_point"]
        return centred.astype(_F) * _F(tensor.grid["scale"])

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of any tensor."""
        if name in self.tensors:
            return self.tensors[name].shape
        return self.array(name).shape

    def holds_floats(self, name: str) -> bool:
        """Whether a tensor is floats in a native buffer, in the order of its axes."""
        tensor = self.tensors.get(name)
        return tensor is not None and tensor.grid is None and len(tensor.shape) != 4

    def floats_of(self, name: str) -> Tensor:
        """Return a tensor as floats in a native buffer, copied there where it lies elsewhere."""
        if self.holds_floats(name):
            return self.tensors[name]
        shape = self.shape(name)
        copied = self.new(f"{name}.copied", shape, None)
        target = self.native.array(copied.buffer, shape, np.float32)
        self.steps.append(lambda: np.copyto(target, self.array(name)))
        return copied

    def constant(self, node: dict[str, Any], name: str) -> Any:
        """Return a constant input of a node; None for one that is left out."""
        if not name:
            return None
        constants = node.get("constants", {})
        return np.array(constants[name]) if name in constants else self.model.tensors[name]
