"""The colours and shapes of every chart.

Colours are of Okabe and Ito's palette (2008), which colour-blind readers tell apart, lighter on a
dark page. A colour never stands alone: marks differ in shape too, and bits are written beside
theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Symbol = Literal["circle", "square", "diamond", "cross", "triangle", "x"]

BLUE, ORANGE, AMBER, GREEN, PINK, GREY = (
    "#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#8a9299",
)  # fmt: skip


@dataclass(frozen=True)
class Role:
    """How one kind of mark looks.

    Attributes:
        light, dark: colour on a light and on a dark page, as ``#rrggbb``.
        symbol: of points.
        hollow: whether points are outlines.
        dashed: whether lines, and the outlines of hollow points, are.
    """

    light: str
    dark: str
    symbol: Symbol = "circle"
    hollow: bool = False
    dashed: bool = False


ROLES: dict[str, Role] = {
    "front": Role(BLUE, "#56b4e9"),
    "beaten": Role(BLUE, "#56b4e9", hollow=True, dashed=True),
    "knee": Role(AMBER, AMBER, "diamond"),
    "rejected": Role(ORANGE, "#f0883e", hollow=True),
    "invalid": Role(ORANGE, "#f0883e", "x"),
    "evaluation": Role(GREY, "#79828b"),
    "other": Role(GREY, "#79828b", "square"),
    "new": Role(ORANGE, "#f0883e", "square"),
    "family": Role("#3f464d", "#c9d1d9", "triangle", dashed=True),
    "budget": Role(ORANGE, "#f0883e", dashed=True),
    "chance": Role(ORANGE, "#f0883e"),
    "equal": Role("#565d64", "#a6adb4", dashed=True),
}
"""Name -> look of what has a meaning of its own."""

SERIES: tuple[Role, ...] = (
    Role(BLUE, "#56b4e9"),
    Role(ORANGE, "#f0883e", "square", dashed=True),
    Role(GREEN, "#2bc59a", "diamond"),
    Role(PINK, "#e3a3c6", "cross", dashed=True),
    Role(AMBER, AMBER, "triangle"),
)
"""The first, second, ... of several of one kind."""

BITS: dict[int, str] = {
    1: PINK, 2: ORANGE, 3: AMBER, 4: "#f0e442", 5: "#a6d854", 6: GREEN,
    7: "#5fc9b0", 8: "#56b4e9", 16: BLUE, 32: "#999999",
}  # fmt: skip
"""Bit-width -> colour, on any page; the number always stands beside it."""

OTHER_BITS = "#bbbbbb"

SHAPES: dict[Symbol, str] = {
    "circle": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "square": "M-4.4 -4.4h8.8v8.8h-8.8z",
    "diamond": "M0 -7l7 7l-7 7l-7 -7z",
    "triangle": "M0 -5.5l5.5 9.5h-11z",
    "cross": "M-1.8 -5.5h3.6v3.7h3.7v3.6h-3.7v3.7h-3.6v-3.7h-3.7v-3.6h3.7z",
    "x": "M-5.2 -2.7l2.5 -2.5l2.7 2.7l2.7 -2.7l2.5 2.5l-2.7 2.7l2.7 2.7l-2.5 2.5l-2.7 -2.7"
    "l-2.7 2.7l-2.5 -2.5l2.7 -2.7z",
}
"""Symbol -> SVG path around (0, 0), in pixels; all about equally heavy."""

ROLES |= {f"series-{i}": role for i, role in enumerate(SERIES, start=1)}


def series(i: int) -> str:
    """Return the role of the ``i``-th (from 0) of several of one kind."""
    return f"series-{i % len(SERIES) + 1}"


def style_sheet() -> str:
    """Return the roles as CSS: ``--role-NAME`` for the page, ``--ink`` inside ``.role-NAME``."""
    return "\n".join(_rules())


def _rules() -> Iterator[str]:
    light = "".join(f" --role-{name}: {role.light};" for name, role in ROLES.items())
    dark = "".join(f" --role-{name}: {role.dark};" for name, role in ROLES.items())
    yield f":root {{{light} }}"
    yield f"@media (prefers-color-scheme: dark) {{ :root {{{dark} }} }}"
    yield f"@media print {{ :root {{{light} }} }}"
    yield from (f".role-{name} {{ --ink: var(--role-{name}); }}" for name in ROLES)
