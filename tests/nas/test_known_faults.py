"""The documentation's table of known faults names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/search.md").read_text("utf-8"))


def test_every_fault_of_the_table_has_a_test():
    rows = [
        line
        for line in (ROOT / "docs/search.md").read_text("utf-8").splitlines()
        if line.startswith("|") and "::" in line
    ]
    assert len(rows) >= 6
    assert all(re.search(r"`tests/[\w/]+\.py::\w+`", row) for row in rows)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_the_named_test_exists(file, name):
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
