"""What the page embeds as JSON: the verified models, and every chart as a specification.

Everything statistical has happened before, so that the script of the page only draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.report.charts.encode import Pool
from nas.report.charts.palette import BITS, OTHER_BITS, ROLES, SHAPES
from nas.report.charts.panels import page_panels
from nas.report.results import is_share, metric_unit
from nas.report.rows import Rows
from search_spaces.atomic import null_for_undefined


def build_payload(rows: Rows) -> dict[str, Any]:
    """Return what the page embeds, JSON without non-finite numbers.

    ``panels`` holds those of :func:`nas.report.charts.panels.page_panels`, ``columns`` what these
    and the models share, ``told`` what is told of the models, in their order.

    Args:
        rows: of the run.
    """
    pool = Pool()
    panels = {name: pool.encode(panel) for name, panel in page_panels(rows).items()}
    # Columns of their own, since charts have the models of the front and the others apart.
    told = [
        pool.encode(tuple(row["told"] for row in rows.models if row["kind"] == kind))
        for kind in ("front", "rejected")
    ]
    return null_for_undefined(
        {
            "metric": {
                "name": rows.metric,
                "percent": is_share(rows.results),
                "unit": metric_unit(rows.results),
            },
            "devices": [{"name": name, "runtime": rows.runtime(name)} for name in rows.devices],
            "models": [_model(row, pool) for row in rows.models],
            "told": told,
            "roles": {
                name: {"symbol": role.symbol, "hollow": role.hollow, "dashed": role.dashed}
                for name, role in ROLES.items()
            },
            "shapes": SHAPES,
            "bits": {**BITS, "other": OTHER_BITS},
            "panels": panels,
            "columns": pool.columns,
        }
    )


def _model(row: Mapping[str, Any], pool: Pool) -> dict[str, Any]:
    left = ("told", "per_class", "pareto", "beaten_by")  # which charts tell
    shown = {key: one for key, one in row.items() if key not in left and one is not None}
    devices = {name: pool.record(found) for name, found in row["devices"].items()}
    return shown | {"costs": pool.record(row["costs"]), "devices": devices}
