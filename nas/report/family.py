"""The reference family of ``nas study value`` in the report, where the study was done."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from nas.report.beside import load_study_file, scroll_table
from nas.report.results import number

KINDS = {
    "ptq": "8 bits after training",
    "ort": "8 bits after training, by ONNX Runtime",
    "qat": "8-bit quantisation-aware training",
}
COMPARED = {
    "int8": "8 bits after training (ours or ONNX Runtime's, by validation)",
    "qat": KINDS["qat"],
}


def load_study(run: Path) -> dict[str, Any] | None:
    """Return the content of ``RUN/studies/value.json``, or None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    return load_study_file(run, "value.json", "members", "nas study value")


def family_rows(study: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the members as the front's chart draws them, each kind once, means over seeds."""
    together: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in (study or {}).get("members") or []:
        together.setdefault((str(row.get("member")), str(row.get("kind"))), []).append(row)
    return [
        {
            "id": f"{member}, {KINDS.get(kind, kind)}",
            "kind": "family",
            "test": _mean(rows, "accuracy"),
            "validation": _mean(rows, "validation"),
            "size_kib": number(rows[0].get("size_kib")),
            "costs": {
                "weights_kib": number(rows[0].get("weights_kib")),
                "macs": number(rows[0].get("macs")),
            },
            "devices": {
                str(name): {"ms": number(value)}
                for name, value in (rows[0].get("latency_ms") or {}).items()
            },
            "seeds": len(rows),
        }
        for (member, kind), rows in together.items()
    ]


def family_section(study: Mapping[str, Any] | None) -> str:
    """Return the tables of the comparison as HTML; nothing without a study."""
    if study is None:
        return ""
    budget = study.get("budget") or {}
    seconds = number(budget.get("seconds"))
    spent = "a time not recorded" if seconds is None else f"{seconds:,.0f}"
    parts = [
        "<section id='value'><h2>Beside networks made by hand</h2>",
        "<p class='note'>",
        escape(
            f"{study.get('family')}: trained with {spent} {budget.get('clock', 's')} "
            f"({budget.get('source', 'not recorded')}), in equal shares, {study.get('seeds')} "
            "times. At each budget the model of best validation accuracy within it counts, on "
            "either side, with its accuracy on the test split. Above 0 the front is better; "
            "intervals are of 95 %."
        ),
        "</p>",
    ]
    for kind, label in COMPARED.items():
        blocks = []
        if kind in (study.get("at_size") or {}):
            blocks.append(("KiB of weights at most", study["at_size"][kind], "{:.1f}"))
        for device, kinds in (study.get("at_latency") or {}).items():
            if kind in kinds:
                blocks.append((f"ms on {device} at most", kinds[kind], "{:.4g}"))
        if blocks:
            parts.append(f"<h3>{escape(label)}</h3>")
        parts += [_table(study, *block) for block in blocks]
    return "".join([*parts, "</section>"])


def _table(study: Mapping[str, Any], title: str, comparison: Mapping[str, Any], form: str) -> str:
    unit = number(study.get("unit")) or 100.0
    share = " %" if unit == 100.0 else ""
    heads = [title, f"Front{share}", f"Family{share}", "Front ahead", "95 % interval"]
    body = []
    for row in comparison["rows"]:
        ours = row.get("front")
        family = row.get("family") or []
        cells = [
            form.format(row["budget"]),
            "no model" if not ours else f"{unit * ours['accuracy']:.2f}",
            "no model" if not family else f"{unit * _mean(family, 'accuracy', 0.0):.2f}",
            *_difference(row, "ahead"),
        ]
        body.append(_row(cells))
    body.append(_row(["on average", "", "", *_difference(comparison, "mean")]))
    return scroll_table(title, heads, body)


def _row(cells: list[str]) -> str:
    return "<tr>" + "".join(f"<td class='num'>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _difference(row: Mapping[str, Any], key: str) -> list[str]:
    value, low, high = (number(row.get(name)) for name in (key, "low", "high"))
    if value is None:
        return ["", ""]
    bounds = "" if low is None or high is None else f"{low:+.2f} to {high:+.2f}"
    return [f"{value:+.2f}", bounds]


def _mean(rows: list[Any], key: str, otherwise: Any = None) -> Any:
    known = [value for row in rows if (value := number(row.get(key))) is not None]
    return sum(known) / len(known) if known else otherwise
