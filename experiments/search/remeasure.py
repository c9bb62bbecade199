"""Measure the front of a finished run again, from nothing, and hold it against its budgets.

Every model file of the front is measured with the run's own protocol into a new store. A row
is over budget where the new median is above the job's largest latency on that device; where
the job sets none, above the upper end of the 95 % interval that the run reported. Files
measured already are not measured again, so the program resumes; delete the store to begin
anew. Run from the repository::

    python -m experiments.search.remeasure RUN
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from devices.device import device_fingerprint
from devices.measuring.store import MeasurementStore
from experiments.results_index import record_claim
from nas.job.devices import make_device
from nas.job.schema import Job, job_space
from nas.report.results import load_results
from search_spaces.atomic import write_json_atomic

RESULTS = Path(__file__).parents[1] / "results" / "search"
CLAIM = "search.front_remeasured"
SHARE_OVER, MOST_OVER, ROWS = 0.05, 0.05, 8


def rows_of(
    front: list[dict[str, Any]],
    device: str,
    again: dict[str, Any],
    budget: float | None,
) -> list[dict[str, Any]]:
    """Return one row an architecture of the front: reported, measured again, budget, excess.

    Args:
        front: of the run's results.
        device: whose measurements count.
        again: id -> new measurement.
        budget: the job's largest latency in ms; None takes each row's reported upper limit.
    """
    rows = []
    for entry in front:
        reported = entry["devices"].get(device)
        if reported is None:
            continue
        new = again[entry["id"]]
        limit = reported["high_ms"] if budget is None else budget
        rows.append(
            {
                "id": entry["id"],
                "device": device,
                "reported_ms": reported["latency_ms"],
                "reported_valid": reported["valid"],
                "remeasured_ms": new.latency_ms,
                "remeasured_low_ms": new.low_ms,
                "remeasured_high_ms": new.high_ms,
                "remeasured_valid": new.valid,
                "budget_ms": limit,
                "over": new.latency_ms / limit - 1.0,
            }
        )
    return rows


def summary(rows: list[dict[str, Any]], results: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that are claimed.

    A row whose new measurement failed counts as over budget, for nothing shows otherwise.
    """
    over = [r for r in rows if not r["over"] <= 0]
    verified = len(results["front"]) + len(results["rejected"])
    ratios = sorted(r["remeasured_ms"] / r["reported_ms"] for r in rows)
    return {
        "rows": len(rows),
        "rows_over_budget": len(over),
        "share_over_budget": len(over) / len(rows) if rows else math.nan,
        "most_over": max((r["over"] for r in rows), default=math.nan),
        "rows_within_budget": len(rows) - len(over),
        "median_ratio_to_reported": ratios[len(ratios) // 2] if ratios else math.nan,
        "valid_by_the_protocol": sum(r["remeasured_valid"] for r in rows),
        "verified": verified,
        "discarded_at_verification": len(results["rejected"]),
        "share_discarded_at_verification": len(results["rejected"]) / verified,
        "discarded_for_a_bound": sum(r.get("why") == "misses a bound" for r in results["rejected"]),
    }


def main() -> None:
    """Measure, write the results and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--store", type=Path, help="new store; by default RUN/remeasured.db")
    parser.add_argument("--output", type=Path, help="by default NAME of the job, in the results")
    parser.add_argument(
        "--record-claim", action="store_true", help="record these figures as the project's claim"
    )
    arguments = parser.parse_args()
    results = load_results(arguments.run)
    manifest = json.loads((arguments.run / "manifest.json").read_text(encoding="utf-8"))
    job = Job.model_validate(manifest["job"])
    space = job_space(job)
    store = MeasurementStore(arguments.store or arguments.run / "remeasured.db")
    with open(arguments.run / "front.csv", encoding="utf-8", newline="") as table:
        listed = {row["id"] for row in csv.DictReader(table)}
    front = [entry for entry in results["front"] if entry["id"] in listed]
    bounds = {c.metric.device: c.bound for c in job.constraints()
              if c.metric.name == "latency_ms" and c.upper}  # fmt: skip
    rows = []
    for config in job.devices:
        if config.simulator is not None:
            continue
        device = make_device(config, space)
        mine = [e for e in front if config.name in e["devices"]]
        found = device.measure(
            [arguments.run / entry["model"] for entry in mine],
            archs=[entry["arch"] for entry in mine],
            space=space.name,
            variant="remeasure",
            protocol=job.measurement_protocol(),
            store=store,
        )
        again = dict(zip([e["id"] for e in mine], found, strict=True))
        rows += rows_of(mine, config.name, again, bounds.get(config.name))
    figures = summary(rows, results)
    command = f"python -m experiments.search.remeasure RUN  # of {job.name}"
    path = arguments.output or RESULTS / f"remeasured_{job.name}.json"
    write_json_atomic(
        path,
        {
            "command": command,
            "job": job.name,
            "seed": job.seed,
            "measured": manifest["created"],
            "remeasured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "hardware": device_fingerprint(),
            "versions": manifest["versions"],
            "budgets": bounds or "the upper ends of the reported 95 % intervals",
            "summary": figures,
            "rows": rows,
        },
    )
    for row in rows:
        print(
            f"{row['id']} {row['device']}: {row['reported_ms']:.4f} ms, now "
            f"{row['remeasured_ms']:.4f} ms, budget {row['budget_ms']:.4f} ms ({row['over']:+.1%})"
        )
    print(json.dumps(figures, indent=2))
    if arguments.record_claim:
        record_claim(
            CLAIM,
            figures,
            {
                "share_over_budget": SHARE_OVER,
                "most_over": MOST_OVER,
                "rows_within_budget": ROWS,
            },
            figures["share_over_budget"] <= SHARE_OVER
            and figures["most_over"] <= MOST_OVER
            and figures["rows_within_budget"] >= ROWS,
            f"experiments/results/search/{path.name}",
            command + " --record-claim",
        )


if __name__ == "__main__":
    main()
