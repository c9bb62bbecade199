"""Weights of a linear layer in 1 to 4 bits, scaled by groups of channels, as kernels read them.

A weight is ``sum over planes of scale * (field - zero) + min``: uniform codes are one plane of
``bits`` bits; hierarchical linear planes (ELUTQ, HLQ) are several planes of one bit, each with
scales of its own. Fields lie in blocks of 16 outputs in the order that
``devices/lowbit/kernels/grouped.h`` describes, so that a file is mapped and used as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces.errors import InputError

OUTPUTS = 16
"""Outputs of a block."""

CHANNELS = 32
"""Channels are filled up to a multiple of this, with fields that nothing reads."""

GROUPS = (0, 32, 64, 128)
"""Channels of a scale; 0: one scale an output."""


@dataclass(frozen=True)
class GroupedWeights:
    """A weight matrix (outputs, channels) in few bits.

    Attributes:
        shape: outputs and channels.
        bits: of a field, 1 to 4; 1 where there are several planes.
        planes: 1 to 4.
        group: channels of a scale, see ``GROUPS``.
        zero: the field that means 0; may lie between two.
        fields: uint8, flat.
        scales: float16 (blocks, groups, planes, 16).
        mins: float16 (blocks, groups, 16), or ``None`` for none.
        bias: float32 (outputs,), or ``None``.
        factor: float32 (channels,) that the input is multiplied by before it is quantised, or
            ``None``; the weights are meant for the input so multiplied.
    """

    shape: tuple[int, int]
    bits: int
    planes: int
    group: int
    zero: float
    fields: np.ndarray
    scales: np.ndarray
    mins: np.ndarray | None = None
    bias: np.ndarray | None = None
    factor: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_form(self.shape, self.bits, self.planes, self.group)
        blocks, groups, channels = _sizes(self.shape, self.group)
        wanted: dict[str, tuple[tuple[int, ...], type]] = {
            "fields": ((blocks * OUTPUTS * channels * self.bits * self.planes // 8,), np.uint8),
            "scales": ((blocks, groups, self.planes, OUTPUTS), np.float16),
            "mins": ((blocks, groups, OUTPUTS), np.float16),
            "bias": (self.shape[:1], np.float32),
            "factor": (self.shape[1:], np.float32),
        }
        for name, (shape, dtype) in wanted.items():
            array = getattr(self, name)
            if array is None and name in ("mins", "bias", "factor"):
                continue
            if array.shape != shape or array.dtype != dtype:
                raise InputError(
                    f"{name} of grouped weights {self.shape} are {array.dtype}{array.shape}, not "
                    f"{np.dtype(dtype)}{shape}"
                )

    @property
    def nbytes(self) -> int:
        """Bytes of fields, scales and what else there is."""
        arrays = (self.fields, self.scales, self.mins, self.bias, self.factor)
        return sum(a.nbytes for a in arrays if a is not None)

    def codes(self) -> np.ndarray:
        """Return the fields, uint8 (planes, outputs, channels)."""
        return _unpack(self.fields, self.shape, self.bits, self.planes, self.group)

    def by_output(self, numbers: np.ndarray) -> np.ndarray:
        """Return numbers (blocks, groups, planes, 16) as (outputs, groups, planes)."""
        blocks, groups, planes, _ = numbers.shape
        ordered = numbers.transpose(0, 3, 1, 2).reshape(blocks * OUTPUTS, groups, planes)
        return ordered[: self.shape[0]]

    def dequantised(self) -> np.ndarray:
        """Return the weights, float32 (outputs, channels), for the input before its factor."""
        centred = self.codes().astype(np.float32) - np.float32(self.zero)
        channels = self.shape[1]
        scales = self.by_output(self.scales).astype(np.float32)
        width = self.group or channels
        wide = np.repeat(scales, width, axis=1)
        weights = np.einsum("pnk,nkp->nk", centred, wide)
        if self.mins is not None:
            mins = self.by_output(self.mins[:, :, None])[..., 0].astype(np.float32)
            weights = weights + np.repeat(mins, width, axis=1)
        return weights if self.factor is None else weights * self.factor


_PARTS = ("fields", "scales", "mins", "bias", "factor")


def store_grouped(
    tensors: dict[str, np.ndarray], name: str, weights: GroupedWeights
) -> dict[str, Any]:
    """Add the arrays of a layer to the tensors of a model file; return its entry of the graph."""
    parts = {part: getattr(weights, part) for part in _PARTS}
    names = {part: f"{name}.{part}" for part, array in parts.items() if array is not None}
    tensors.update({names[part]: parts[part] for part in names})
    form = {key: getattr(weights, key) for key in ("bits", "planes", "group", "zero")}
    return {"grouped": {**form, **names}, "fill": None}


def load_grouped(tensors: Mapping[str, np.ndarray], weights: Mapping[str, Any]) -> GroupedWeights:
    """Return a layer of a model file; its arrays are those of the file, not copies.

    Raises:
        InputError: an array is missing or has another form.
    """
    entry = weights["grouped"]
    try:
        form = {key: entry[key] for key in ("bits", "planes", "group", "zero")}
        parts: dict[str, Any] = {p: tensors[entry[p]] for p in _PARTS if p in entry}
        outputs, channels = weights["shape"]
        return GroupedWeights((outputs, channels), **form, **parts)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"a layer of grouped weights is described wrongly: {error}") from error


def check_form(shape: tuple[int, int], bits: int, planes: int, group: int, where: str = "") -> None:
    """Check sizes of grouped weights.

    Raises:
        InputError: bits, planes or the group are none that kernels read, or the group does not
            divide the channels; the message begins with ``where``.
    """
    where = f"{where}: " if where else ""
    if not 1 <= bits <= 4:
        raise InputError(f"{where}weights of a linear layer have 1 to 4 bits, not {bits}")
    if not 1 <= planes <= 4 or (planes > 1 and bits != 1):
        raise InputError(f"{where}{planes} planes of {bits} bits; planes are 1 to 4, of one bit")
    if group not in GROUPS:
        raise InputError(f"{where}a group has 32, 64 or 128 channels, or 0 for all; not {group}")
    if group and shape[1] % group:
        divisors = [g for g in GROUPS if g and shape[1] % g == 0]
        fix = f"use {' or '.join(map(str, divisors))}" if divisors else "use 0, a scale an output"
        raise InputError(
            f"{where}groups of {group} do not divide {shape[1]} channels of a layer; {fix}"
        )


def pack_grouped(
    codes: np.ndarray,
    scales: np.ndarray,
    *,
    bits: int,
    group: int,
    zero: float = 0.0,
    mins: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    factor: np.ndarray | None = None,
) -> GroupedWeights:
    """Return fields and scales in the order that kernels read.

    Args:
        codes: fields, (outputs, channels) or (planes, outputs, channels), 0 to ``2**bits - 1``.
        scales: (outputs, groups) or (planes, outputs, groups).
        bits, group, zero, bias, factor: see :class:`GroupedWeights`.
        mins: (outputs, groups), or ``None``.

    Raises:
        InputError: shapes or codes do not fit.
    """
    codes, scales = np.asarray(codes), np.asarray(scales)
    codes = codes if codes.ndim == 3 else codes[None]
    scales = scales if scales.ndim == 3 else scales[None]
    planes, outputs, channels = codes.shape
    shape = (outputs, channels)
    check_form(shape, bits, planes, group)
    blocks, groups, _ = _sizes(shape, group)
    if codes.size and not 0 <= codes.min() <= codes.max() < 2**bits:
        raise InputError(f"fields {codes.min()}..{codes.max()} do not fit {bits} bits")
    if scales.shape != (planes, outputs, groups):
        raise InputError(f"scales have shape {scales.shape}, not {(planes, outputs, groups)}")
    if not (np.abs(scales) <= 65504).all():
        raise InputError("a scale is not finite, or passes 65504, the largest float16")
    if mins is not None and np.shape(mins) != (outputs, groups):
        raise InputError(f"mins have shape {np.shape(mins)}, not {(outputs, groups)}")
    fill = blocks * OUTPUTS - outputs
    by_block = np.pad(scales, ((0, 0), (0, fill), (0, 0)))
    by_block = by_block.reshape(planes, blocks, OUTPUTS, groups).transpose(1, 3, 0, 2)
    packed_mins = None
    if mins is not None:
        wide = np.pad(np.asarray(mins), ((0, fill), (0, 0))).reshape(blocks, OUTPUTS, groups)
        packed_mins = np.ascontiguousarray(wide.transpose(0, 2, 1), np.float16)
    return GroupedWeights(
        shape,
        bits,
        planes,
        group,
        float(zero),
        _pack(codes.astype(np.uint8), bits, group),
        np.ascontiguousarray(by_block, np.float16),
        packed_mins,
        None if bias is None else np.ascontiguousarray(bias, np.float32),
        None if factor is None else np.ascontiguousarray(factor, np.float32),
    )


def _sizes(shape: tuple[int, int], group: int) -> tuple[int, int, int]:
    """Blocks of outputs, groups, and channels filled up."""
    channels = -(-shape[1] // CHANNELS) * CHANNELS
    return -(-shape[0] // OUTPUTS), channels // (group or channels), channels


def _pack(codes: np.ndarray, bits: int, group: int) -> np.ndarray:
    planes, outputs, channels = codes.shape
    blocks, groups, filled = _sizes((outputs, channels), group)
    codes = np.pad(codes, ((0, 0), (0, blocks * OUTPUTS - outputs), (0, filled - channels)))
    # Planes, blocks, halves, 8 outputs, groups, steps, 4 fours, 4 channels.
    axes = codes.reshape(planes, blocks, 2, 8, groups, filled // groups // 16, 4, 4)
    steps = axes.transpose(1, 4, 0, 5, 6, 2, 3, 7).reshape(-1, 8, 32)
    if bits == 3:
        return np.concatenate([_share(steps & 3, 2), _share(steps >> 2, 1)], 1).reshape(-1)
    return _share(steps, bits).reshape(-1)


def _share(steps: np.ndarray, bits: int) -> np.ndarray:
    """(steps, 8 vectors, 32) fields -> (steps, 32 * bits) bytes."""
    many = 8 // bits
    parts = steps.reshape(len(steps), bits, many, 32)
    shifts = (np.arange(many, dtype=np.uint8) * bits).reshape(many, 1)
    return np.bitwise_or.reduce(parts << shifts, axis=2).reshape(len(steps), 32 * bits)


def _unpack(
    fields: np.ndarray, shape: tuple[int, int], bits: int, planes: int, group: int
) -> np.ndarray:
    blocks, groups, filled = _sizes(shape, group)
    kept = fields.reshape(-1, 32 * bits)
    if bits == 3:
        steps = _apart(kept[:, :64], 2) | (_apart(kept[:, 64:], 1) << 2)
    else:
        steps = _apart(kept, bits)
    axes = steps.reshape(blocks, groups, planes, filled // groups // 16, 4, 2, 8, 4)
    codes = axes.transpose(2, 0, 5, 6, 1, 3, 4, 7).reshape(planes, blocks * OUTPUTS, filled)
    return np.ascontiguousarray(codes[:, : shape[0], : shape[1]])


def _apart(kept: np.ndarray, bits: int) -> np.ndarray:
    many = 8 // bits
    parts = kept.reshape(len(kept), bits, 1, 32)
    shifts = (np.arange(many, dtype=np.uint8) * bits).reshape(many, 1)
    return ((parts >> shifts) & np.uint8(2**bits - 1)).reshape(len(kept), 8, 32)
