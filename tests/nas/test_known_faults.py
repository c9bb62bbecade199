"""The documentation's table of known faults names tests, and they run and pass."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/search.md").read_text("utf-8")
NODE = r"`(tests/[\w/]+\.py(?:::\w+)+)`"
NAMED = list(dict.fromkeys(re.findall(NODE, TEXT)))


def test_every_fault_of_the_table_has_a_test():
    rows = [line for line in TEXT.splitlines() if line.startswith("|") and "::" in line]
    assert len(rows) >= 6
    assert all(re.search(NODE, row) for row in rows)
    # A name written another way would be left out below.
    assert len(re.findall(r"\.py::", TEXT)) == len(re.findall(NODE, TEXT))


@pytest.fixture(scope="module")
def outcomes():
    """Outcomes of the named tests by the name they are given: a set of words each."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *NAMED]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = {name: set() for name in NAMED}
    for line in run.stdout.splitlines():
        outcome, _, rest = line.partition(" ")
        node = rest.split(" - ")[0].split("[")[0]
        if node in found and outcome.isupper():
            found[node].add(outcome)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED, ids=[name.rpartition("::")[2] for name in NAMED])
def test_the_named_test_passes(name, outcomes):
    # Neither skipped nor expected to fail: then nothing would be tested.
    assert outcomes[name] == {"PASSED"}
