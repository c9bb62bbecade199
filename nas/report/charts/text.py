"""Figures as people read them, the same in every drawing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

MISSING = "not recorded"


def short(value: float | None, digits: int = 4) -> str:
    """Return a number with ``digits`` significant digits, whole from a thousand on."""
    if value is None:
        return MISSING
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def milliseconds(value: float | None) -> str:
    """Return a latency with its unit."""
    return MISSING if value is None else f"{short(value)} ms"


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """Return a 95 % interval in words."""
    if low is None or high is None:
        return "interval not recorded"
    return f"95 % interval {short(low)}–{short(high)}{unit}"


def duration(seconds: float) -> str:
    """Return a time as seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def tally(words: Iterable[str]) -> str:
    """Return how often each word occurs: ``3 measured, 12 predicted``."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).items())


def plural(count: int, word: str) -> str:
    """Return ``1 pair`` or ``2 pairs``."""
    more = "es" if word.endswith("s") else "s"
    return f"{count} {word}{'' if count == 1 else more}"
