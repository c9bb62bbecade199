"""A roofline over layers whose arithmetic, traffic and energy depend on bits.

Each layer takes the longer of its arithmetic on the array and its traffic to memory
(Williams et al., Roofline, CACM 2009), plus a set-up time. Arithmetic is counted in tiles of
a weight-stationary array, as in SCALE-Sim (Samajdar et al., ISPASS 2020), so narrow layers
and depthwise convolutions leave units idle. An estimate of a model of hardware, not a
measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from devices.simulators.hardware import FormatUnit, Hardware
from search_spaces.errors import InputError
from search_spaces.memory import stream_bits
from search_spaces.number_formats import bits_of, number_format
from search_spaces.plan import FLOAT_BITS, STREAM_BITS, LayerPlan, OperatorPlan
from search_spaces.planned import BlockColumn, PlannedSpace


@dataclass(frozen=True)
class Estimate:
    """Of ``n`` architectures.

    Attributes:
        latency_ms: (n,) of one inference.
        energy_mj: (n,) of one inference.
        compute_share: (n,) share of the time in layers that arithmetic limits.
        layers: name of each layer that any has -> its (n,) latency, 0 where absent.
    """

    latency_ms: np.ndarray
    energy_mj: np.ndarray
    compute_share: np.ndarray
    layers: dict[str, np.ndarray]


def estimate_genes(
    space: PlannedSpace, genes: np.ndarray, hardware: Hardware, *, batch: int = 1
) -> Estimate:
    """Estimate gene rows (n, choices) of a space; ``batch`` images at a time."""
    return estimate_blocks(space.block_columns(np.asarray(genes)), len(genes), hardware, batch)


def estimate_blocks(
    blocks: Sequence[BlockColumn], rows: int, hardware: Hardware, batch: int = 1
) -> Estimate:
    """Estimate networks described block by block over ``rows`` architectures."""
    seconds, joules = np.zeros(rows), np.zeros(rows)
    limited = np.zeros(rows)
    layers: dict[str, np.ndarray] = {}
    stream = stream_bits(blocks, rows)
    for block in blocks:
        items = [(c.layer.name, c.active, _layer_work(c.layer, stream)) for c in block.layers]
        for item in block.operators:
            if np.any(item.operator.macs):
                work = _operator_work(item.operator, stream)
                items.append((item.operator.name, item.active, work))
        for name, active, work in items:
            time, energy, bound = _run(work, hardware, batch)
            layers[name] = np.where(active, time, 0.0) * 1e3
            seconds += np.where(active, time, 0.0)
            joules += np.where(active, energy, 0.0)
            limited += np.where(active & bound, time, 0.0)
    joules = joules + hardware.energy.static_mw * 1e-3 * seconds
    share = limited / np.where(seconds > 0, seconds, 1.0)
    return Estimate(seconds * 1e3, joules * 1e3, share, layers)


def estimate_layer(
    layer: LayerPlan[int],
    hardware: Hardware,
    weights: int | str,
    inputs: int | str,
    *,
    batch: int = 1,
) -> tuple[float, float]:
    """Return the latency (ms) and the energy (mJ) of one layer of one network.

    Args:
        layer: its sizes; its own bits do not matter.
        hardware: the description.
        weights, inputs: bits of integers, or names of number formats.
        batch: images at a time.

    Raises:
        InputError: the hardware has no units for a format.
    """
    held = replace(layer, weight_bits=bits_of(weights), activation_bits=bits_of(inputs))
    stream = STREAM_BITS if bits_of(inputs) < FLOAT_BITS else FLOAT_BITS
    work = _layer_work(held, np.asarray(stream))
    operands = [_operand(hardware, number) for number in (weights, inputs)]
    units = [unit for _, unit in operands if unit is not None]
    unit = None
    if units:
        unit = FormatUnit(
            energy=max(one.energy for one in units), products=min(one.products for one in units)
        )
    work = replace(work, weight_bits=operands[0][0], activation_bits=operands[1][0])
    seconds, joules, _ = _run(work, hardware, batch, unit)
    joules = joules + hardware.energy.static_mw * 1e-3 * seconds
    return float(np.squeeze(seconds)) * 1e3, float(np.squeeze(joules)) * 1e3


def _operand(hardware: Hardware, number: int | str) -> tuple[int, FormatUnit | None]:
    """Return the bits that arithmetic sees, and the unit of a format that has one."""
    if isinstance(number, int):
        return number, None
    if number in hardware.formats:
        return bits_of(number), hardware.formats[number]
    _, top = number_format(number).whole_codes
    if not top:
        has = ", ".join(sorted(hardware.formats)) or "none"
        raise InputError(
            f"{hardware.name} has no units for {number} (of formats that are no small whole "
            f"numbers it has: {has}); name them under 'formats' in its description"
        )
    return top.bit_length() + 1, None


@dataclass(frozen=True)
class _Work:
    """A product (pixels, inner) x (inner, outer), ``groups`` times; bits and bytes."""

    pixels: Any
    inner: Any
    outer: Any
    groups: Any
    weight_bits: Any
    activation_bits: Any
    weight_bytes: Any
    input_bytes: Any
    output_bytes: Any


def _layer_work(layer: LayerPlan, stream: np.ndarray) -> _Work:
    output_count = layer.out_channels * np.asarray(layer.out_pixels) * layer.tokens
    return _Work(
        pixels=np.asarray(layer.out_pixels) * layer.tokens,
        inner=np.asarray(layer.in_channels) // layer.groups * np.asarray(layer.kernel_area),
        outer=np.asarray(layer.out_channels) // layer.groups,
        groups=np.asarray(layer.groups),
        weight_bits=np.asarray(layer.weight_bits),
        activation_bits=np.asarray(layer.activation_bits),
        weight_bytes=layer.packed_bytes,
        input_bytes=layer.input_count * np.asarray(layer.activation_bits) / 8,
        output_bytes=output_count * stream / 8,
    )


def _operator_work(operator: OperatorPlan, stream: np.ndarray) -> _Work:
    """The two products of an attention as one of the same size; its factors are activations."""
    tokens, width = np.asarray(operator.tokens), np.asarray(operator.channels)
    heads = np.asarray(operator.heads)
    head_width = width // np.maximum(heads, 1)
    # Of an attention to another sequence ``tokens`` are its keys; queries are as many as its work.
    crosses = operator.kind == "cross_attention"
    queries = np.asarray(operator.macs) // (2 * tokens * width) if crosses else tokens
    return _Work(
        pixels=2 * tokens,
        inner=head_width,
        outer=queries,
        groups=heads,
        weight_bits=stream,
        activation_bits=stream,
        weight_bytes=np.zeros(1),
        input_bytes=(2 * tokens + queries) * width * stream / 8,
        output_bytes=queries * width * stream / 8,
    )


def _run(
    work: _Work, hardware: Hardware, batch: int, unit: FormatUnit | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return seconds, joules (without the static part) and whether arithmetic is the limit."""
    gain = products_per_cycle(hardware, work.weight_bits, work.activation_bits)
    if unit is not None:
        gain = np.full_like(gain, unit.products)
    # Narrow operands recombine along the inner axis, as the bricks of Bit Fusion do.
    rows = hardware.rows * np.maximum(gain, 1.0)
    passes = 1 / np.minimum(gain, 1.0)
    side_by_side = np.where(work.groups > 1, hardware.depthwise_columns, 1)
    tiles = (
        np.ceil(work.inner / rows)
        * np.ceil(work.outer / hardware.columns)
        * np.ceil(work.groups / side_by_side)
    )
    fill = hardware.rows + hardware.columns - 2
    cycles = tiles * (work.pixels * batch * passes + fill)
    compute = cycles / (hardware.clock_mhz * 1e6)

    memory = hardware.memory
    moved = (work.input_bytes + work.output_bytes) * batch
    inside = work.input_bytes + work.output_bytes <= memory.activation_buffer_kib * 1024
    parts = np.ceil(work.weight_bytes / max(memory.weight_buffer_kib * 1024, 1.0))
    again = np.maximum(parts, 1.0)
    beyond = np.where(inside, 0.0, (work.input_bytes * again + work.output_bytes) * batch)
    if not memory.resident_weights:
        beyond = beyond + work.weight_bytes
    transfer = beyond / (memory.bandwidth_gb_s * 1e9)

    energy = hardware.energy
    macs = work.pixels * batch * work.inner * work.outer * work.groups
    mac_pj = energy.mac_pj * (
        _mac_energy(hardware, work.weight_bits, work.activation_bits)
        if unit is None
        else unit.energy
    )
    inside_bytes = moved + work.weight_bytes
    picojoules = (
        macs * mac_pj
        + inside_bytes * energy.buffer_pj_per_byte
        + beyond * energy.memory_pj_per_byte
    )
    seconds = np.maximum(compute, transfer) + hardware.layer_overhead_us * 1e-6
    return seconds, picojoules * 1e-12, np.asarray(compute >= transfer)


def products_per_cycle(hardware: Hardware, weight_bits: Any, activation_bits: Any) -> np.ndarray:
    """Return the products of one unit in a cycle, against the 1 of 8 x 8 bits (or native)."""
    w = np.asarray(weight_bits, dtype=np.float64)
    a = np.asarray(activation_bits, dtype=np.float64)
    if hardware.kind == "fixed":
        n = hardware.native_bits
        return 1 / (np.ceil(w / n) * np.ceil(a / n))
    if hardware.kind == "fusion":
        return 64 / (_brick(w) * _brick(a))
    if hardware.kind == "serial_activations":
        return 8 / (a * np.ceil(w / 8))
    return 64 / (w * a)


def _brick(bits: np.ndarray) -> np.ndarray:
    """Operands are as wide as a power of two of bricks: 2, 4, 8, 16, 32 bits."""
    return 2 ** np.ceil(np.log2(np.maximum(bits, 2)))


def _mac_energy(hardware: Hardware, weight_bits: Any, activation_bits: Any) -> np.ndarray:
    """Return the energy of a product against one of 8 x 8 bits."""
    return (
        1
        / products_per_cycle(hardware, weight_bits, activation_bits)
        * ((hardware.native_bits / 8) ** 2 if hardware.kind == "fixed" else 1.0)
    )
