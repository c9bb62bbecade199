"""Layers that make codes of numbers: staircases, slopes, products and images of other sizes.

Their operations are those that :mod:`devices.lowbit.integers.rewriting` adds to a packed model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.lowbit.integers.gates import Operand, product_codes, product_numbers, reach_of
from devices.lowbit.integers.norms import norm_numbers
from devices.lowbit.integers.resampling import image_taps, resample_numbers

if TYPE_CHECKING:
    from devices.lowbit.buffers import Buffers, Tensor


def _by_number(network: Buffers, node: dict[str, Any]) -> None:
    """Codes by a table, a layer's floats by a staircase or by slopes."""
    x, out = network.tensors[node["inputs"][0]], node["output"]
    grid, count = network.grids[out], math.prod(x.shape)
    target = network.new(out, x.shape, grid)
    if node["op"] == "table":
        first = network.native.map(x.buffer, target.buffer, count, node["table"])
    elif node["op"] == "steps":
        steps = node["steps"]
        first = network.native.layer(
            "steps", x.buffer, target.buffer, count, len(steps.places), steps.places, steps.codes
        )
    else:
        channels = len(node["slopes"])
        first = network.native.layer(
            "slopes", x.buffer, target.buffer, count // channels, channels, node["slopes"],
            grid["scale"], grid["zero_point"], 2 ** grid["bits"] - 1,
        )  # fmt: skip
    network.note(node["op"], first)


def _gate(network: Buffers, node: dict[str, Any]) -> None:
    tensors, out = [network.tensors[name] for name in node["inputs"]], node["output"]
    grid, operands = network.grids[out], node["operands"]
    target = network.new(out, np.broadcast_shapes(*(t.shape for t in tensors)), grid)
    forms: list[np.ndarray] = []
    for operand, tensor in zip(operands, tensors, strict=True):
        if (reach := reach_of(tensor.stored, target.stored)) is None:
            _shared_gate(network, operands, tensors, target)
            return
        forms += operand_form(operand, reach)
    shift, multiplier = product_numbers(operands, grid)
    shape = target.stored
    first = network.native.layer(
        "gate", *(t.buffer for t in tensors), target.buffer, shape[0], math.prod(shape[1:-1]),
        shape[-1], *forms, shift, float(multiplier), grid["zero_point"], 2 ** grid["bits"] - 1,
    )  # fmt: skip
    network.note("gate", first)


def operand_form(operand: Operand, reach: tuple[bool, bool]) -> list[np.ndarray]:
    """Return the form and the table of an operand, as ``lowbit.h`` has them."""
    table = np.zeros(1) if operand.table is None else operand.table.ravel()
    form = [
        operand.kind, operand.zero_point, operand.point, operand.low, operand.high,
        operand.cell_bits, *reach, len(table),
    ]  # fmt: skip
    return [np.array(form, np.int32), table.astype(np.int32)]


def _shared_gate(
    network: Buffers, operands: Sequence[Operand], tensors: Sequence[Tensor], target: Tensor
) -> None:
    """A product of which one side has a number for each row, say: integers, in NumPy."""
    *given, out = (
        view.transpose(0, 3, 1, 2) if view.ndim == 4 else view
        for t in (*tensors, target)
        for view in [network.native.array(t.buffer, t.stored, np.uint8 if t.grid else np.float32)]
    )
    grid = target.grid
    assert grid is not None

    def multiply() -> None:
        out[...] = product_codes(operands, given, grid)

    network.steps.append(multiply)


def _resample(network: Buffers, node: dict[str, Any]) -> None:
    x, out = network.tensors[node["inputs"][0]], node["output"]
    grid, operand = network.grids[out], node["operand"]
    batch, channels, *sides = x.shape
    axes = image_taps(node["axes"], sides, out)
    size = [len(taps.first) for taps in axes]
    target = network.new(out, (batch, channels, *size), grid)
    lift, multiplier = resample_numbers(operand, grid)
    numbers = [
        number
        for taps in axes
        for number in (taps.weights.shape[1], taps.first, taps.weights.ravel())
    ]
    low = grid["zero_point"] if node["positive"] else 0
    first = network.native.layer(
        "resample", x.buffer, target.buffer, batch, *sides, channels, *size,
        *operand_form(operand, (True, True)), lift, *numbers, float(multiplier),
        grid["zero_point"], low, 2 ** grid["bits"] - 1,
    )  # fmt: skip
    network.note("resample", first)


def _norm(network: Buffers, node: dict[str, Any]) -> None:
    x, out = network.tensors[node["inputs"][0]], node["output"]
    batch, channels, *sides = x.shape
    pixels = math.prod(sides)
    norm = norm_numbers(
        node["bound"],
        node["groups"],
        node["epsilon"],
        node["gain"],
        node["bias"],
        pixels,
        positive=node["positive"],
    )
    target = network.new(out, x.shape, None)
    first = network.native.layer(
        "norm", x.buffer, target.buffer, batch, pixels, channels, norm.groups, norm.point,
        norm.low, norm.limit, norm.shift, norm.epsilon, norm.gain, norm.bias,
    )  # fmt: skip
    network.note("norm", first)


NUMBERS: Mapping[str, Callable[[Buffers, dict[str, Any]], None]] = {
    "table": _by_number,
    "steps": _by_number,
    "slopes": _by_number,
    "gate": _gate,
    "resample": _resample,
    "norm": _norm,
}
"""Operation -> what adds its layer to a network."""
