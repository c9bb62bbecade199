"""The documentation builds, and every warning is an error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.docs_hooks import INDEX, claims_table, with_values

ROOT = Path(__file__).parents[2]


def test_it_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= {path.parent.name for path in tmp_path.glob("*/index.html")}
    figures = (tmp_path / "figures" / "index.html").read_text(encoding="utf-8")
    assert "latency.nb201_10" in figures
    # Nothing is fetched from elsewhere when a page is read.
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'<(?:script|link rel="stylesheet"|img)[^>]*"https?://', text)


def test_a_missed_claim_stands_out_and_odd_characters_do_no_harm():
    table = claims_table(
        {
            "b.missed": {"value": {"cpu": 0.51239}, "target": "<= 0.5", "met": False},
            "a.met": {"value": 3, "target": 2, "met": True, "file": "x.json"},
        }
    )
    lines = table.splitlines()
    assert lines[2] == "| a.met | 3 | 2 | yes | `x.json` |"
    assert lines[3] == "| b.missed | cpu: 0.5124 | \\<= 0.5 | **no** | `none` |"


def test_a_claim_named_in_a_table_is_shown_with_its_value():
    claims = {"search.speed": {"value": 2.5}}
    text = "In prose `search.speed`.\n| here | `search.speed` |"
    assert with_values(text, claims) == "In prose `search.speed`.\n| here | 2.5 (`search.speed`) |"
    with pytest.raises(KeyError, match="speeed"):
        with_values("| `search.speeed` |", claims)


def test_the_figures_name_recorded_claims_alone():
    claims = json.loads(INDEX.read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    assert with_values(text, claims).count(" (`latency.") >= 4
