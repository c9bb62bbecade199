"""Number formats of few bits beside integers: small floats, quantiles, powers of two.

A format is a table from codes to values. A tensor in it is ``scale * value(code)``, with a scale
for the tensor, a channel or a group. Encoding takes the nearest value; a tie goes to the even code
of a float, as IEEE 754 rounds, and to the smaller value of others. What lies beyond the largest
value becomes the largest value, so nothing turns into infinity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from search_spaces.errors import InputError
from search_spaces.registry import Registry

LARGEST_WHOLE = 127
"""Largest size of a whole number that an 8-bit integer of either sign holds."""


@dataclass(frozen=True)
class NumberFormat:
    """A format of ``bits`` bits.

    Attributes:
        name: such as ``fp8_e4m3``.
        bits: of a code.
        tables: value of each code, (2**bits,) each; NaN where a code means no number. Several
            tables where a group of weights chooses the one that suits it.
        source: where it comes from.
        signed_magnitude: the upper half of the codes are the negatives of the lower half, which
            ascend; then zero has a sign, and a tie goes to the even code.
        onnx: the type of a tensor in ONNX that ONNX Runtime reads, such as ``FLOAT8E4M3FN``.
        activations: whether inputs of layers may have it, too.
    """

    name: str
    bits: int
    tables: tuple[tuple[float, ...], ...]
    source: str
    signed_magnitude: bool = False
    onnx: str = ""
    activations: bool = False

    def __post_init__(self) -> None:
        if not self.tables or any(len(table) != 2**self.bits for table in self.tables):
            raise InputError(f"{self.name}: a table of {self.bits} bits has {2**self.bits} values")

    @property
    def variants(self) -> int:
        """Tables that a group may choose from."""
        return len(self.tables)

    def values(self, variant: int = 0) -> np.ndarray:
        """Return the value of each code, float32 (2**bits,); NaN where it means no number."""
        return np.array(self.tables[variant], np.float32)

    def largest(self, variant: int = 0) -> float:
        """Return the largest size of a value."""
        return float(np.nanmax(np.abs(self.values(variant))))

    @cached_property
    def whole_codes(self) -> tuple[float, int]:
        """Return a unit and the largest value in units, where every value is a whole number of it.

        ``(0.0, 0)`` where 8-bit integers cannot hold all values exactly; where they can, kernels
        of integers compute with the format.
        """
        values = np.array(self.tables, np.float64)
        sizes = np.unique(np.abs(values[np.isfinite(values)]))
        unit = 2.0 ** math.floor(math.log2(sizes[sizes > 0][0]))
        while sizes[-1] / unit <= LARGEST_WHOLE:
            if (sizes / unit == np.round(sizes / unit)).all():
                return unit, round(sizes[-1] / unit)
            unit /= 2
        return 0.0, 0

    @property
    def odd(self) -> bool:
        """Whether values are odd whole numbers of a unit, no more of them than codes.

        Then a packed file stores them in as many bits as codes have.
        """
        unit, top = self.whole_codes
        values = np.array(self.tables, np.float64)
        return 0 < top < 2**self.bits and bool((values / unit % 2 == 1).all())

    def ladder(self, variant: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what encoding compares with: ``(codes, values, middles)``.

        Codes in the order of their values, the values, and the middles between neighbours,
        (n,), (n,) and (n - 1,). Of a signed-magnitude format those from zero up alone.
        """
        values = self.values(variant)
        count = len(values) // 2 if self.signed_magnitude else len(values)
        codes = np.flatnonzero(np.isfinite(values[:count]))
        codes = codes[np.argsort(values[codes], kind="stable")]
        steps = values[codes].astype(np.float64)
        # Of single precision, so that tensors of it get the same codes everywhere.
        middles = ((steps[1:] + steps[:-1]) / 2).astype(np.float32)
        return codes.astype(np.uint8), values[codes], middles.astype(np.float64)

    def encode(self, values: np.ndarray, variant: int = 0) -> np.ndarray:
        """Return the code of the nearest value to each of ``values``: uint8 of any shape.

        Raises:
            InputError: a value is no number.
        """
        x = np.asarray(values, np.float64)
        if np.isnan(x).any():
            raise InputError(f"{self.name}: what is no number has no code")
        codes, _, middles = self.ladder(variant)
        size = np.abs(x) if self.signed_magnitude else x
        below = np.searchsorted(middles, size, side="left")
        if self.signed_magnitude:
            above = np.searchsorted(middles, size, side="right")
            below = np.where(codes[below] % 2 == 0, below, above)
            sign = np.signbit(x).astype(np.uint8) << (self.bits - 1)
            return (codes[below] | sign).astype(np.uint8)
        return codes[below]

    def decode(self, codes: np.ndarray, variant: int = 0) -> np.ndarray:
        """Return the value of each code: float32 of any shape."""
        return self.values(variant)[np.asarray(codes)]


NUMBER_FORMATS: Registry[NumberFormat] = Registry("number format", group="nas.number_formats")


def number_format(name: str) -> NumberFormat:
    """Return the format called ``name``.

    Raises:
        InputError: there is none; the message lists them.
    """
    return NUMBER_FORMATS.get(name)


def bits_of(number: int | str) -> int:
    """Return the bits of a code: of an integer's bits themselves, or of a format by its name."""
    return number if isinstance(number, int) else number_format(number).bits


def parse_number(text: str) -> int | str:
    """Return bits of integers, such as ``"4"`` -> 4, or the name of a format.

    Raises:
        InputError: it is neither.
    """
    text = text.strip()
    if text.isdecimal():
        return int(text)
    return number_format(text).name


def _mirrored(magnitudes: list[float], bits: int) -> tuple[float, ...]:
    half = 2 ** (bits - 1)
    up = magnitudes + [float("nan")] * (half - len(magnitudes))
    return (*up, *(-value for value in up))


def _floating(exponent: int, mantissa: int, *, reserved: int = 0) -> tuple[float, ...]:
    """Return the values of sign, exponent and mantissa; ``reserved`` codes on top mean none."""
    bits = 1 + exponent + mantissa
    bias = 2 ** (exponent - 1) - 1
    found = []
    for code in range(2 ** (bits - 1) - reserved):
        power, rest = code >> mantissa, code & (2**mantissa - 1)
        share = rest / 2**mantissa + (power > 0)
        found.append(share * 2.0 ** (max(power, 1) - bias))
    return _mirrored(found, bits)


def _with_special(table: tuple[float, ...], special: float) -> tuple[float, ...]:
    """Return a signed-magnitude table whose second zero stands for another value."""
    half = len(table) // 2
    return (*table[:half], special, *table[half + 1 :])


def _hot(bits: int, ones: int) -> list[float]:
    return [float(n) for n in range(2**bits) if n.bit_count() <= ones]


_OCP = "OCP 8-bit Floating Point Specification 1.0, 2023"
_MX = "OCP Microscaling Formats Specification 1.0, 2023"
_FP4 = _floating(2, 1)
_FP3 = _mirrored([0.0, 1.0, 2.0, 4.0], 3)
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip

for _format in (
    NumberFormat("fp8_e4m3", 8, (_floating(4, 3, reserved=1),), _OCP, True, "FLOAT8E4M3FN", True),
    NumberFormat("fp8_e5m2", 8, (_floating(5, 2, reserved=4),), _OCP, True, "FLOAT8E5M2", True),
    NumberFormat(
        "fp8_e3m4",
        8,
        (_floating(3, 4, reserved=16),),
        "IEEE-like, as in FP8 versus INT8, van Baalen et al., 2023",
        True,
        activations=True,
    ),
    NumberFormat("fp6_e3m2", 6, (_floating(3, 2),), _MX, True, activations=True),
    NumberFormat("fp6_e2m3", 6, (_floating(2, 3),), _MX, True, activations=True),
    NumberFormat("fp4_e2m1", 4, (_FP4,), _MX, True, activations=True),
    NumberFormat("nf4", 4, (_NF4,), "QLoRA, Dettmers et al., NeurIPS 2023, appendix E"),
    NumberFormat(
        "levels2",
        2,
        ((-1.5, -0.5, 0.5, 1.5),),
        "uniform without a zero, as many levels of either sign (Max, 1960; the stretched elastic "
        "quantiser of ParetoQ, Liu et al., 2025)",
    ),
    NumberFormat(
        "shift2", 2, (_mirrored([1.0, 2.0], 2),), "DenseShift, Li et al., ICCV 2023", True
    ),
    NumberFormat(
        "shift3",
        3,
        (_mirrored([1.0, 2.0, 4.0, 8.0], 3),),
        "DenseShift, Li et al., ICCV 2023",
        True,
    ),
    NumberFormat(
        "shift4",
        4,
        (_mirrored([2.0**k for k in range(8)], 4),),
        "DenseShift, Li et al., ICCV 2023",
        True,
    ),
    NumberFormat(
        "hot2",
        6,
        (_mirrored(_hot(7, 2), 6),),
        "fixed point of 7 bits and a sign of which at most two are one (FLightNN, Ding et al., "
        "DAC 2019)",
        True,
    ),
    NumberFormat(
        "bitmod3",
        3,
        tuple(_with_special(_FP3, special) for special in (3.0, -3.0, 6.0, -6.0)),
        "BitMoD, Chen et al., HPCA 2025, section III",
    ),
    NumberFormat(
        "bitmod4",
        4,
        tuple(_with_special(_FP4, special) for special in (5.0, -5.0, 8.0, -8.0)),
        "BitMoD, Chen et al., HPCA 2025, section III",
    ),
):
    NUMBER_FORMATS.register(_format.name)(_format)
