"""Do the report and the documentation do what they say? Counted by the tests that try them.

``python -m experiments.people.pages`` runs the report in a browser and the pages that bring an
own module and an own latency table, and records how many checks passed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "experiments" / "results" / "people" / "pages.json"
COMMAND = "python -m experiments.people.pages"
CLAIMS = {
    "people.report_in_browser": (
        ["tests/nas/report/test_browser.py"],
        "no console error, every interactive part responds, screenshots of both widths",
    ),
    "people.own_model_and_table_pages": (
        ["tests/docs/test_pages.py", "-k", "own-model or latency-tables or latency-predictor"],
        "the pages run as written",
    ),
    "people.notebooks": (["tests/notebooks"], "every notebook runs on a stored run"),
}
"""Claim -> arguments of pytest, and what is asked for."""


def main() -> None:
    """Run the tests of every claim and record what they counted."""
    found = {}
    for claim, (arguments, target) in CLAIMS.items():
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            subprocess.run(
                [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments],
                cwd=ROOT,
                check=False,
            )
            suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
        counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors")}
        counts["skipped"] = int(suite.get("skipped", 0))
        found[claim] = counts
        met = counts["tests"] > 0 and not sum(counts[n] for n in ("failures", "errors", "skipped"))
        write_json_atomic(RESULT, {"command": COMMAND, "claims": found})
        record_claim(claim, counts, target, met, str(RESULT.relative_to(ROOT)), COMMAND)


if __name__ == "__main__":
    main()
