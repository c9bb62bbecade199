"""Tests that docs/search.md names, each for a fault of other projects: they must run and pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "docs/search.md").read_text("utf-8")
NODE = r"`(tests/[\w/]+\.py(?:::\w+)+)`"
NAMED = tuple(dict.fromkeys(re.findall(NODE, TEXT)))

FORKING: pytest.StashKey[set[str]] = pytest.StashKey()
"""Names of the tests marked ``forks`` that a session collected, chosen or not."""


def name_of(nodeid: str) -> str:
    """Return a test's name without its parameters."""
    return nodeid.partition("[")[0]


def must_pass(report: pytest.TestReport) -> None:
    """Make a failure of a named test that was skipped or is expected to fail."""
    expected = getattr(report, "wasxfail", None)
    if name_of(report.nodeid) not in NAMED or not (report.skipped or expected is not None):
        return
    if expected is not None:
        del report.wasxfail
    why = f"expected to fail: {expected}" if expected is not None else f"skipped: {report.longrepr}"
    report.outcome = "failed"
    report.longrepr = f"docs/search.md names this test for a known fault; it must pass, was {why}"
