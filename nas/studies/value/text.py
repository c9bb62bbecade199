"""The result of ``nas study value`` as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LABELS = {
    "int8": "8 bits after training (the better of ours and ONNX Runtime's, by validation)",
    "qat": "8-bit quantisation-aware training",
}
"""What is told of each comparison; the other kinds are in the file."""


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table for the content of ``value.json``."""
    budget = result["budget"]
    yield (
        f"reference family: {result['family']}, {budget['seconds']:.0f} {budget['clock']} "
        f"({budget['source']}) in equal shares of {budget['of_a_member']:.0f}, "
        f"{result['seeds']} seed{'s' if result['seeds'] != 1 else ''}"
    )
    for kind, label in LABELS.items():
        if kind not in result["at_size"]:
            continue
        yield ""
        yield f"against {label}"
        unit = result["unit"]
        yield from _table(result["at_size"][kind], "KiB at most", "{:.1f}", unit)
        for device, kinds in result["at_latency"].items():
            if kind in kinds:
                yield from _table(kinds[kind], f"ms on {device}", "{:.4f}", unit)
    for item in result["latency"]:
        if item["unavailable"]:
            yield f"no latency on {item['device']}: {item['unavailable']}"
        for name, why in item["failed"].items():
            yield f"{item['device']} cannot run {name}: {why}"


def _table(comparison: Mapping[str, Any], title: str, form: str, unit: float) -> Iterator[str]:
    share = " %" if unit == 100.0 else ""
    yield f"{title:>16}{'front' + share:>10}{'family' + share:>10}{'ahead':>8}   95 % interval"
    for row in comparison["rows"]:
        ours = "-" if row["front"] is None else f"{unit * row['front']['accuracy']:.2f}"
        family = "-"
        if row["family"]:
            each = [found["accuracy"] for found in row["family"]]
            family = f"{unit * sum(each) / len(each):.2f}"
        yield f"{form.format(row['budget']):>16}{ours:>10}{family:>10}{_ahead(row, 'ahead')}"
    yield f"{'on average':>16}{'':>20}{_ahead(comparison, 'mean')}"
    if comparison["missing"]:
        rows = comparison["rows"]
        lacking = [form.format(r["budget"]) for r in rows if r["front"] is None and r["family"]]
        yield (
            f"{'':>16}not in the average: {', '.join(lacking)}, for which the front has no model "
            "and the family has one"
        )


def _ahead(row: Mapping[str, Any], key: str) -> str:
    if row[key] is None:
        return f"{'-':>8}"
    text = f"{row[key]:>+8.2f}"
    if row["low"] is not None:
        text += f"   {row['low']:+.2f} to {row['high']:+.2f}"
    return text
