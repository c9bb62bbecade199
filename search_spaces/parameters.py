"""Checks of what a user says about a space, and the rounding of channel counts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS

BITS = (1, 2, 3, 4, 5, 6, 7, 8, 16, FLOAT_BITS)
ACTIVATIONS = ("relu", "hswish", "gelu")


def round_channels(channels: float | np.ndarray, divisor: int) -> np.ndarray:
    """Round to the nearest multiple of ``divisor``, never below it nor by more than 10 % down."""
    channels = np.asarray(channels, dtype=np.float64)
    rounded = np.maximum(divisor, np.floor(channels / divisor + 0.5) * divisor)
    rounded = np.where(rounded < 0.9 * channels, rounded + divisor, rounded)
    return rounded.astype(np.int64)


def strided(size: np.ndarray | int, stride: np.ndarray | int) -> Any:
    """Return the side of a feature map after a stride, with padding that keeps sizes."""
    return (size + stride - 1) // stride


def whole(name: str, value: Any, *, least: int = 1) -> None:
    """Raise :class:`InputError` unless ``value`` is a whole number from ``least`` on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value!r} must be a whole number from {least}")


def odd(name: str, value: Any) -> None:
    """Raise :class:`InputError` unless ``value`` is an odd whole number, as a kernel side is."""
    whole(name, value)
    if value % 2 == 0:
        raise InputError(f"{name}: kernel {value} is even; use odd kernel sides")


def ascending(name: str, values: Any) -> None:
    """Raise :class:`InputError` unless ``values`` is a tuple of ascending positive numbers."""
    if not isinstance(values, tuple) or not values:
        raise InputError(f"{name}={values!r} must be a list with at least one value")
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0 for v in values):
        raise InputError(f"{name}={list(values)} must be positive numbers")
    if list(values) != sorted(set(values)):
        raise InputError(f"{name}={list(values)} must be ascending, each value once")


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise :class:`InputError` unless ``value`` is one of ``allowed``."""
    allowed = list(allowed)
    if value not in allowed:
        raise InputError(f"{name}={value!r} is not one of {allowed}")


def check_bits(name: str, options: Any) -> tuple[int, ...]:
    """Return the bit-widths ``options`` if a layer can have them.

    Weights of 1 bit are -1 and +1; they need a quantiser that serves them, such as ``binary``.

    Raises:
        InputError: they are no ascending list of known bit-widths.
    """
    ascending(name, options)
    for bits in options:
        if bits not in BITS:
            raise InputError(f"{name}: {bits!r} is not one of {list(BITS)}")
    return tuple(options)


def from_mapping(kind: Any, entry: Any, place: str) -> Any:
    """Build the dataclass ``kind`` from a mapping of a job; lists become tuples.

    Raises:
        InputError: no mapping, an unknown key, or a missing one; the message names ``place``.
    """
    if isinstance(entry, kind):
        return entry
    if not isinstance(entry, Mapping):
        raise InputError(f"{place} must be a mapping, not {entry!r}")
    known = [f.name for f in fields(kind)]
    for name in entry:
        if name not in known:
            raise InputError(f"unknown key {name!r} in {place} (allowed: {', '.join(known)})")
    from dataclasses import MISSING

    missing = [
        f.name
        for f in fields(kind)
        if f.default is MISSING and f.default_factory is MISSING and f.name not in entry
    ]
    if missing:
        raise InputError(f"{place} lacks {', '.join(missing)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})


def known_names(space: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise :class:`InputError` for a name that is no parameter of the space called ``space``."""
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"unknown parameter {name!r} of the space {space!r}{hint} "
                f"(allowed: {', '.join(known)})"
            )
