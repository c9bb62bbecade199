"""A map of devices as SVG: those that rank architectures alike lie close together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from xml.sax.saxutils import escape

import numpy as np

_WIDTH, _HEIGHT, _MARGIN = 720, 480, 60


def device_map_svg(
    names: Sequence[str], points: np.ndarray, *, highlighted: Collection[str] = ()
) -> str:
    """Return a scatter plot with a label a device.

    Args:
        points: (devices, 2), from :meth:`predictors.transfer_gp.predictor.TransferGP.embedding`.
        highlighted: names drawn as filled squares, for instance the new device.
    """
    points = np.asarray(points, dtype=np.float64)
    low, span = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-9)
    unit = (points - low) / span
    x = _MARGIN + unit[:, 0] * (_WIDTH - 3 * _MARGIN)
    y = _HEIGHT - _MARGIN - unit[:, 1] * (_HEIGHT - 2 * _MARGIN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        '<text x="16" y="24" font-size="14">Devices by how they rank architectures</text>',
    ]
    taken: list[tuple[float, float]] = []
    for name, px, py in zip(names, x, y, strict=True):
        label_y = py + 4
        # Labels of near twins are moved down until they do not overlap.
        while any(abs(label_y - ty) < 13 and abs(px - tx) < 140 for tx, ty in taken):
            label_y += 13
        taken.append((px, label_y))
        if name in highlighted:
            mark = (
                f'<rect x="{px - 5:.1f}" y="{py - 5:.1f}" width="10" height="10" fill="#b3261e"/>'
            )
        else:
            mark = f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="#1b5e8c"/>'
        parts.append(mark)
        parts.append(f'<text x="{px + 9:.1f}" y="{label_y:.1f}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])
