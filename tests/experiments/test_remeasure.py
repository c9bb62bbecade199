"""What counts as over budget when a front is measured again."""

import math
from types import SimpleNamespace

import pytest

from experiments.search.remeasure import rows_of, summary


def entry(name, reported, high):
    return {
        "id": name,
        "devices": {"cpu": {"latency_ms": reported, "high_ms": high, "valid": True}},
    }


def measured(value, valid=True):
    return SimpleNamespace(latency_ms=value, low_ms=value, high_ms=value, valid=valid)


FRONT = [entry("a", 1.0, 1.1), entry("b", 2.0, 2.2)]
RESULTS = {"front": FRONT, "rejected": [{"id": "c", "why": "misses a bound"}, {"id": "d"}]}


def test_the_jobs_budget_decides_where_there_is_one():
    rows = rows_of(FRONT, "cpu", {"a": measured(1.05), "b": measured(2.1, False)}, 2.0)
    found = summary(rows, RESULTS)
    assert found["rows"] == 2 and found["rows_over_budget"] == 1
    assert found["most_over"] == pytest.approx(0.05)
    assert found["rows_within_budget"] == 1
    assert found["valid_by_the_protocol"] == 1
    assert found["share_discarded_at_verification"] == 0.5
    assert found["discarded_for_a_bound"] == 1


def test_without_a_budget_each_rows_reported_upper_limit_is_one():
    rows = rows_of(FRONT, "cpu", {"a": measured(1.09), "b": measured(2.3)}, None)
    assert [row["over"] <= 0 for row in rows] == [True, False]
    assert rows_of(FRONT, "another board", {}, None) == []


def test_a_measurement_that_failed_is_over_budget():
    rows = rows_of(FRONT[:1], "cpu", {"a": measured(math.nan, False)}, 2.0)
    assert summary(rows, RESULTS)["rows_over_budget"] == 1
