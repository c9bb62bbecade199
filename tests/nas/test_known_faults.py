"""The documentation's table of known faults names tests, and they run and pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.known_faults import FORKING, NAMED, NODE, TEXT, must_pass, name_of

ROOT = Path(__file__).parents[2]


def test_every_fault_of_the_table_has_a_test():
    rows = [line for line in TEXT.splitlines() if line.startswith("|") and "::" in line]
    assert len(rows) >= 6
    assert all(re.search(NODE, row) for row in rows)
    # A name written another way would be left out below.
    assert len(re.findall(r"\.py::", TEXT)) == len(re.findall(NODE, TEXT))


@pytest.fixture(scope="module")
def here(request) -> set[str]:
    """Named tests that this session runs itself, and tells of: see ``must_pass``."""
    names = {name_of(item.nodeid) for item in request.session.items}
    if request.config.option.markexpr == "not forks":
        # The whole suite runs those by themselves (run-tests).
        names |= request.config.stash[FORKING]
    return names & set(NAMED)


@pytest.fixture(scope="module")
def outcomes(here) -> dict[str, set[str]]:
    """Outcomes of the other named tests by the name they are given: a set of words each."""
    found: dict[str, set[str]] = {name: set() for name in NAMED if name not in here}
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *found]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    for line in run.stdout.splitlines():
        outcome, _, rest = line.partition(" ")
        node = rest.split(" - ")[0].split("[")[0]
        if node in found and outcome.isupper():
            found[node].add(outcome)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED, ids=[name.rpartition("::")[2] for name in NAMED])
def test_the_named_test_passes(name, here, request):
    if name not in here:
        # Neither skipped nor expected to fail: then nothing would be tested.
        assert request.getfixturevalue("outcomes")[name] == {"PASSED"}


@pytest.mark.parametrize("outcome", ["passed", "failed", "skipped"])
@pytest.mark.parametrize("expected", [None, "a reason"], ids=["plain", "xfail"])
def test_a_named_test_that_does_not_simply_pass_fails(outcome, expected):
    for name, named in ((f"{NAMED[0]}[a]", True), ("tests/test_other.py::test_other", False)):
        report = pytest.TestReport(name, ("", 0, ""), {}, outcome, None, "call")
        if expected:
            report.wasxfail = expected
        must_pass(report)
        simply = (outcome, expected) == ("passed", None)
        assert report.outcome == ("failed" if named and not simply else outcome)
        assert hasattr(report, "wasxfail") == (bool(expected) and not named)
