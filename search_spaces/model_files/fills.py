"""Weight codes without the factors that make them fill int8, found again in a file."""

from __future__ import annotations

import numpy as np

from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import Encoding, fill_factors

_FILLS = (127, 64)


def unfilled(
    codes: np.ndarray, used: np.ndarray, bits: int, name: str, *, factored: bool
) -> tuple[np.ndarray, int]:
    """Return the codes without the factor of each channel, and the fill it follows from.

    Args:
        codes: before a factor multiplied them, where that is known; else as used.
        used: as the network multiplies with them.
        bits: nominal bits of the codes.
        name: of the layer, for the error.
        factored: whether ``codes`` are without factors.

    Raises:
        InputError: the factors do not follow from the codes.
    """
    for fill in _FILLS:
        bare = codes if factored else _divided(codes, fill, bits)
        if bare is None:
            continue
        column = fill_factors(bare, fill).reshape(-1, *[1] * (bare.ndim - 1))
        if np.array_equal(bare.astype(np.int64) * column, used.astype(np.int64)):
            return bare, fill
    if not factored:
        return codes, 0
    raise InputError(
        f"{name}: the factors of its codes do not follow from the codes; export it again"
    )


def _divided(codes: np.ndarray, fill: int, bits: int) -> np.ndarray | None:
    """Undo :func:`fill_factors`: divide each channel by a factor that its quotient leads to."""
    rows = codes.astype(np.int64).reshape(len(codes), -1)
    found = []
    for row in rows:
        common = int(np.gcd.reduce(row)) if row.size else 0
        largest = int(np.abs(row).max()) if row.size else 0
        if common == 0:
            found.append(row)
            continue
        for factor in range(common, 0, -1):
            quotient = largest // factor
            if common % factor == 0 and max(fill // quotient, 1) == factor:
                found.append(row // factor)
                break
        else:
            return None
    bare = np.array(found).reshape(codes.shape)
    try:
        Encoding.for_codes(bare, bits)
    except InputError:
        return None
    return bare
