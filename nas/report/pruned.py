"""The pruned largest network beside the front, where ``nas study sparsity`` was done."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from nas.report.beside import load_study_file, scroll_table
from nas.report.results import number


def load_pruned(run: Path) -> dict[str, Any] | None:
    """Return the content of ``RUN/studies/sparsity/sparsity.json``, None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    return load_study_file(run, "sparsity/sparsity.json", "rows", "nas study sparsity")


def pruned_section(study: Mapping[str, Any] | None) -> str:
    """Return the table of the comparison as HTML; nothing without a study."""
    if study is None:
        return ""
    metric = str(study.get("metric"))
    rows = []
    for entry in study.get("front") or []:
        model = entry.get("model") or {}
        reached = number(entry.get("trained", entry.get("one_shot")))
        rows.append(
            (
                str(model.get("id")), _shown(model.get("weights_kib"), 4),
                _shown(model.get("validation"), 4), str(entry.get("pattern", entry.get("error"))),
                _shown(entry.get("sparse_kib"), 4), _shown(reached, 4),
            )
        )  # fmt: skip
    if not rows:
        return ""
    heads = ("Model", "KiB of weights", f"Validation {metric}", "Zeros", "KiB, estimated",
             f"Validation {metric}, pruned")  # fmt: skip
    body = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        "<section id='pruned'><h2>Beside the pruned largest network</h2><p class='note'>"
        "Models of the front, and the largest network pruned by magnitude until sparse storage "
        "would take as much, by an estimate: files here store zeros like other codes, and runtimes "
        "are no faster for them. Metrics on the validation images; trained on for "
        f"{escape(str(study.get('steps')))} steps.</p>"
        f"{scroll_table('Beside the pruned largest network', heads, body)}</section>"
    )


def _shown(value: Any, digits: int) -> str:
    known = number(value)
    return "–" if known is None else f"{known:.{digits}g}"
