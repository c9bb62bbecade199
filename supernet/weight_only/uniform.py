"""Uniform codes with a scale for a group of channels: round to nearest, GPTQ, AWQ's scaling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from search_spaces.errors import InputError
from search_spaces.model_files.grouped import GroupedWeights, check_form, pack_grouped

_SHRINKS = np.linspace(0.4, 1.0, 25)
"""Shares of the full range that are tried for a scale."""

_LEAST_SCALE, _LARGEST_HALF = 2.0**-24, 65504.0
"""Of the numbers of 16 bits that scales are stored in."""

_DAMP = 0.01
_ALPHAS = np.linspace(0, 1, 11)


def grids(
    weights: np.ndarray, bits: int, *, ternary: bool = False, symmetric: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale and the smallest value of each row's grid, by the least squared error.

    Args:
        weights: (rows, width), each row with a grid of its own.
        bits: of a code.
        ternary: the codes -1, 0 and 1 alone, of 2 bits.
        symmetric: zero is a code, ``2**(bits - 1)`` above the smallest; otherwise the grid may
            begin anywhere.

    Returns:
        Scales and minima, (rows,) each: values are ``min + scale * code``.
    """
    top = 2**bits - 1
    half = 2 ** (bits - 1)
    low, high = weights.min(1), weights.max(1)
    best = np.full(len(weights), np.inf)
    scale, start = np.ones(len(weights)), np.zeros(len(weights))
    for shrink in _SHRINKS:
        if symmetric or ternary:
            steps = 1 if ternary else half - 0.5 if bits > 1 else 0.5
            tried = np.maximum(np.abs(low), np.abs(high)) * shrink / steps
            begin = -tried * (2 if ternary else half if bits > 1 else 0.5)
        else:
            tried, begin = (high - low) * shrink / top, low * shrink
        tried = np.where(tried > 0, tried, 1.0)
        codes = _codes(weights, tried, begin, bits, ternary)
        error = np.square(begin[:, None] + tried[:, None] * codes - weights).sum(1)
        better = error < best
        best[better], scale[better], start[better] = error[better], tried[better], begin[better]
    return scale, start


def _codes(
    weights: np.ndarray, scale: np.ndarray, start: np.ndarray, bits: int, ternary: bool = False
) -> np.ndarray:
    codes = np.rint((weights - start[:, None]) / scale[:, None])
    return np.clip(codes, 1 if ternary else 0, 2**bits - 1)


def as_stored(values: np.ndarray) -> np.ndarray:
    """Return numbers of groups as a file holds them, in 16 bits.

    Raises:
        InputError: they are too large for that.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= _LARGEST_HALF:
        raise InputError(
            f"weights of a size of {largest:.3g} do not fit scales of 16 bits, which end at "
            f"{_LARGEST_HALF:g}; scale the layer down, or leave it in float"
        )
    return values.astype(np.float16).astype(np.float64)


def _stored_grids(
    weights: np.ndarray, bits: int, ternary: bool, symmetric: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return scales and minima of :func:`grids` as a file holds them, in 16 bits."""
    scale, start = grids(weights, bits, ternary=ternary, symmetric=symmetric)
    # Of filters that died in training the scale would be no more than zero in 16 bits.
    scale = np.maximum(as_stored(scale), _LEAST_SCALE)
    # A grid with a zero has no minimum of its own.
    return scale, -_zero(bits) * scale if symmetric or ternary else as_stored(start)


def round_to_nearest(
    weight: np.ndarray,
    bits: int,
    group: int,
    *,
    ternary: bool = False,
    symmetric: bool = True,
    bias: np.ndarray | None = None,
    factor: np.ndarray | None = None,
) -> GroupedWeights:
    """Quantise a weight matrix, each weight to its nearest code.

    Args:
        weight: (outputs, channels), for the input times ``factor``.
        bits, group, ternary, symmetric: see :func:`grids` and ``GroupedWeights``.
        bias, factor: passed on.
    """
    outputs, channels = weight.shape
    check_form((outputs, channels), bits, 1, group)
    width = group or channels
    rows = np.asarray(weight, np.float64).reshape(-1, width)
    scale, start = _stored_grids(rows, bits, ternary, symmetric)
    codes = _codes(rows, scale, start, bits, ternary).reshape(outputs, channels)
    return _packed(codes, scale, start, bits, group, symmetric or ternary, bias, factor)


def _zero(bits: int) -> float:
    return 0.5 if bits == 1 else float(2 ** (bits - 1))


def _packed(
    codes: np.ndarray,
    scale: np.ndarray,
    start: np.ndarray,
    bits: int,
    group: int,
    symmetric: bool,
    bias: np.ndarray | None,
    factor: np.ndarray | None,
) -> GroupedWeights:
    outputs = len(codes)
    return pack_grouped(
        codes,
        scale.reshape(outputs, -1),
        bits=bits,
        group=group,
        zero=_zero(bits) if symmetric else 0.0,
        mins=None if symmetric else start.reshape(outputs, -1),
        bias=bias,
        factor=factor,
    )


def gptq(
    weight: np.ndarray,
    inputs: np.ndarray,
    bits: int,
    group: int,
    *,
    ternary: bool = False,
    symmetric: bool = True,
    bias: np.ndarray | None = None,
    factor: np.ndarray | None = None,
) -> GroupedWeights:
    """Quantise column by column, what is lost being made up by the columns that follow.

    GPTQ, Frantar et al. 2023, algorithm 1; a group's grid is set when its first column is reached.

    Args:
        weight: (outputs, channels).
        inputs: (samples, channels), what the layer is given.
        others: see :func:`round_to_nearest`.

    Raises:
        InputError: the inputs have another number of channels.
    """
    outputs, channels = weight.shape
    check_form((outputs, channels), bits, 1, group)
    inputs = _inputs(inputs, channels)
    hessian = inputs.T @ inputs / len(inputs)
    dead = np.diag(hessian) == 0
    hessian[dead, dead] = 1
    hessian[np.diag_indices(channels)] += _DAMP * np.mean(np.diag(hessian))
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    rest = np.array(weight, np.float64)
    width = group or channels
    codes = np.zeros((outputs, channels))
    scales, starts = [], []
    for k in range(channels):
        if k % width == 0:
            end = k + width
            scale, start = _stored_grids(rest[:, k:end], bits, ternary, symmetric)
            scales.append(scale)
            starts.append(start)
        codes[:, k] = _codes(rest[:, k : k + 1], scale, start, bits, ternary)[:, 0]
        lost = (rest[:, k] - (start + scale * codes[:, k])) / upper[k, k]
        rest[:, k + 1 :] -= np.outer(lost, upper[k, k + 1 :])
    return _packed(
        codes,
        np.stack(scales, 1),
        np.stack(starts, 1),
        bits,
        group,
        symmetric or ternary,
        bias,
        factor,
    )


def scaled_by_activations(
    weight: np.ndarray,
    inputs: np.ndarray,
    quantise: Callable[[np.ndarray, np.ndarray], GroupedWeights],
) -> GroupedWeights:
    """Quantise with channels scaled up that carry much, as AWQ does (Lin et al. 2024, section 3.2).

    Channel ``k`` of the weights is multiplied by ``mean |x_k| ** alpha`` and the input divided by
    it; the alpha of 11 between 0 and 1 is kept whose outputs are nearest.

    Args:
        weight: (outputs, channels).
        inputs: (samples, channels).
        quantise: of the scaled weights and the factor of the input, for instance
            :func:`round_to_nearest`.
    """
    inputs = _inputs(inputs, weight.shape[1])
    exact = inputs @ weight.T
    size = np.abs(inputs).mean(0)
    size = np.maximum(size / max(float(np.exp(np.mean(np.log(size + 1e-9)))), 1e-9), 1e-4)
    best, chosen = np.inf, None
    for alpha in _ALPHAS:
        up = size**alpha
        factor = (1 / up).astype(np.float32)
        tried = quantise(weight / factor, factor)
        error = float(np.square(inputs @ tried.dequantised().T.astype(np.float64) - exact).mean())
        if error < best:
            best, chosen = error, tried
    assert chosen is not None
    return chosen


def _inputs(inputs: np.ndarray, channels: int) -> np.ndarray:
    inputs = np.asarray(inputs, np.float64).reshape(-1, np.shape(inputs)[-1])
    if inputs.shape[1] != channels or not len(inputs):
        raise InputError(
            f"calibration inputs have shape {inputs.shape}, not (samples, {channels}) of the layer"
        )
    return inputs
