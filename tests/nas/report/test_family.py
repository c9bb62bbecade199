"""The reference family beside the front: rows, tables, untrusted names, damaged files."""

from __future__ import annotations

import json

import pytest

from nas.report import write_report
from nas.report.family import family_rows, family_section, load_study
from nas.report.page import render
from nas.studies.value.comparison import Point, compare
from search_spaces.errors import InputError

EVIL = "</script><script>alert(1)</script><b>"


def member(name, kind, seed, accuracy, kib=10.0):
    return {
        "member": name,
        "kind": kind,
        "seed": seed,
        "accuracy": accuracy,
        "validation": accuracy,
        "weights_kib": kib,
        "size_kib": kib + 5,
        "macs": 1000,
        "latency_ms": {"cpu": 0.1},
    }


def embedded(page):
    """The JSON of a page."""
    return page.partition('id="data">')[2].partition("</script>")[0]


@pytest.fixture
def study():
    front = [Point("f", 10.0, 0.9, 0.9, latency_ms={"cpu": 0.1})]
    families = [[Point("m", 9.0, 0.8, 0.79)], [Point("m", 9.0, 0.8, 0.81)]]
    return {
        "family": "plain",
        "unit": 100.0,
        "budget": {"seconds": 1234.0, "clock": "processor seconds", "source": "spent by the run"},
        "seeds": 2,
        "members": [
            member("m", "ptq", 0, 0.79),
            member("m", "ptq", 1, 0.81),
            member("m", "qat", 0, 0.85),
        ],
        "at_size": {"int8": compare(front, families, [5.0, 10.0])},
        "at_latency": {"cpu": {"int8": compare(front, families, [0.1], device="cpu")}},
    }


def test_seeds_are_drawn_as_one_point(study):
    rows = family_rows(study)
    assert [row["seeds"] for row in rows] == [2, 1]
    assert rows[0]["test"] == pytest.approx(0.80)
    assert rows[0]["devices"] == {"cpu": {"ms": 0.1}}


def test_the_page_tells_the_comparison_and_embeds_the_rows(results, study):
    without, page = render(results), render(results, study)
    assert 'id="value"' not in without.replace("'", '"') and "made by hand" not in embedded(without)
    assert "id='value'" in page and "1,234 processor seconds" in page
    assert "+10.00" in page and "no model" in page
    assert "made by hand" in embedded(page) and "mean of 2 trainings" in embedded(page)


def test_names_of_a_family_are_text(results, study):
    study["family"] = study["members"][0]["member"] = EVIL
    page = render(results, study)
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page
    assert family_section(study).count("<b>") == 0


def test_the_report_of_a_run_takes_its_study(results, study, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert load_study(tmp_path) is None
    assert "id='value'" not in write_report(tmp_path).read_text()
    (tmp_path / "studies").mkdir()
    path = tmp_path / "studies" / "value.json"
    path.write_text(json.dumps(study))
    assert "id='value'" in write_report(tmp_path).read_text()
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"value\.json"):
            write_report(tmp_path)
