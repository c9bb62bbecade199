"""The section of the report that shows examples: pictures with boxes and masks, signals, words.

``RUN/examples.json`` is of a run and so untrusted: pictures must be PNG, everything else is
escaped or a number.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from nas.record.result_types import number
from search_spaces.errors import InputError

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45",
           "#9a6324", "#469990")  # fmt: skip
_MOST = 24
_MOST_BYTES = 400_000


def load_examples(run: Path) -> dict[str, Any] | None:
    """Return the examples of a run, or None where there are none.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(run) / "examples.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: {error}; delete it, and the report leaves it out") from error
    if not isinstance(found, dict) or not isinstance(found.get("examples"), list):
        raise InputError(f"{path}: has no list of examples; delete it")
    return found


def examples_section(found: Mapping[str, Any] | None) -> str:
    """Return the section as HTML; empty without examples."""
    if not found or not found["examples"]:
        return ""
    classes = [str(name) for name in found.get("classes") or []]
    each = [_figure(one, classes) for one in found["examples"][:_MOST] if isinstance(one, Mapping)]
    masks = any(isinstance(one, Mapping) and one.get("mask") for one in found["examples"])
    legend = _legend(classes) if masks else ""
    boxes = " Dashed boxes are those of the annotations." if _wanted(found["examples"]) else ""
    return (
        "<section id='examples'><h2>Examples</h2>"
        f"<p class='note'>{len(each)} of the {escape(str(found.get('split', '')))} set, "
        f"and what the exported file of {escape(str(found.get('model', '')))} says of them."
        f"{boxes}</p>"
        f"{legend}<div class='examples'>{''.join(each)}</div></section>"
    )


def _wanted(examples: Sequence[Any]) -> bool:
    """Whether boxes of annotations are drawn on any of the examples shown."""
    boxes = [box for one in examples[:_MOST] if isinstance(one, Mapping)
             for box in one.get("boxes") or []]  # fmt: skip
    return any(isinstance(box, Mapping) and box.get("wanted") for box in boxes)


def _figure(one: Mapping[str, Any], classes: Sequence[str]) -> str:
    caption = escape(str(one.get("caption") or ""))
    lines = one.get("lines")
    if isinstance(lines, list):
        inside = _lines(lines)
    else:
        # A text is all in its caption.
        inside = _picture(one, classes) if "picture" in one else ""
    return f"<figure>{inside}<figcaption>{caption}</figcaption></figure>"


def _picture(one: Mapping[str, Any], classes: Sequence[str]) -> str:
    width, height = number(one.get("width")) or 1, number(one.get("height")) or 1
    parts = [_image(one.get("picture"), "")]
    if one.get("mask"):
        parts.append(_image(_coloured(one["mask"], len(classes)), " opacity='.55'"))
    for box in one.get("boxes") or []:
        corners = [number(c) for c in box.get("corners") or []] if isinstance(box, Mapping) else []
        if len(corners) == 4 and all(c is not None and math.isfinite(c) for c in corners):
            parts.append(_box(box, [float(c) for c in corners if c is not None]))
    ratio = max(0.2, min(5.0, float(height) / float(width)))
    return (
        f"<svg viewBox='0 0 1 1' preserveAspectRatio='none' width='220' "
        f"height='{220 * ratio:.0f}' role='img'>{''.join(parts)}</svg>"
    )


def _box(box: Mapping[str, Any], corners: Sequence[float]) -> str:
    left, top, right, bottom = corners
    kind = number(box.get("kind")) or 0
    wanted = bool(box.get("wanted"))
    shade = "#ffffff" if wanted else COLOURS[int(kind) % len(COLOURS)]
    dashes = " stroke-dasharray='.02 .015' opacity='.8'" if wanted else ""
    text = ""
    if box.get("label"):
        text = (
            f"<text class='box-name' x='{left + 0.005:.4f}' y='{max(0.05, top - 0.012):.4f}' "
            f"color='{shade}'>{escape(str(box['label']))}</text>"
        )
    return (
        f"<rect x='{left:.4f}' y='{top:.4f}' width='{max(0, right - left):.4f}' "
        f"height='{max(0, bottom - top):.4f}' fill='none' stroke='{shade}' "
        f"stroke-width='.01'{dashes}/>{text}"
    )


def _image(text: Any, more: str) -> str:
    data = _png(text)
    if data is None:
        return ""
    return (
        f"<image href='data:image/png;base64,{data}' x='0' y='0' width='1' height='1' "
        f"preserveAspectRatio='none' style='image-rendering:pixelated'{more}/>"
    )


def _png(text: Any) -> str | None:
    """Return base64 of a PNG, or None for anything else."""
    if not isinstance(text, str) or len(text) > _MOST_BYTES:
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(data).decode() if data.startswith(b"\x89PNG\r\n\x1a\n") else None


def _coloured(text: Any, classes: int) -> str | None:
    """Return a mask of classes, a grey PNG, in colours; class 0 is clear."""
    data = _png(text)
    if data is None:
        return None
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
            mask = np.asarray(opened.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    colours = np.zeros((256, 4), np.uint8)
    for kind in range(1, max(2, min(classes, 255))):
        shade = COLOURS[(kind - 1) % len(COLOURS)]
        colours[kind] = [*(int(shade[i : i + 2], 16) for i in (1, 3, 5)), 255]
    out = io.BytesIO()
    Image.fromarray(colours[mask], "RGBA").save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def _legend(classes: Sequence[str]) -> str:
    parts = [
        f"<span style='color:{COLOURS[i % len(COLOURS)]}'>&#9632;</span> {escape(name)}"
        for i, name in enumerate(classes[1:11])
    ]
    return f"<p class='note'>{' '.join(parts)}</p>"


def _lines(lines: Sequence[Any]) -> str:
    parts = []
    for i, line in enumerate(lines[:3]):
        values = [number(v) for v in line] if isinstance(line, list) else []
        known = [float(v) for v in values if v is not None and math.isfinite(v)]
        if len(known) < 2 or len(known) != len(values):
            continue
        low, span = min(known), max(max(known) - min(known), 1e-9)
        points = " ".join(
            f"{k / (len(known) - 1):.4f},{0.95 - 0.9 * (v - low) / span:.4f}"
            for k, v in enumerate(known)
        )
        parts.append(
            f"<polyline points='{points}' fill='none' stroke='{COLOURS[i]}' stroke-width='1' "
            "vector-effect='non-scaling-stroke'/>"
        )
    return (
        "<svg viewBox='0 0 1 1' preserveAspectRatio='none' width='220' height='110' role='img'>"
        f"{''.join(parts)}</svg>"
    )
